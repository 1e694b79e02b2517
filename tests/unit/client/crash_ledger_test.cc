#include "client/core/crash_ledger.h"

#include <rapidcheck.h>

#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace selvage::client {
namespace {

using std::chrono::hours;
using test::IsOk;
using test::StatusIs;

constexpr Time kStart = FromMicros(1'700'000'000'000'000);

crypto::Digest Values(uint8_t n) { return crypto::Sha256(Bytes(1, n)); }

// One death while `what` was loaded.
void DieLoading(CrashLedger& ledger, const crypto::Digest& what, Time now) {
  ledger.Begin(RiskyWork::kServing, what);
  EXPECT_TRUE(ledger.CountDeath(/*session_died=*/false, now));
}

TEST(CrashLedgerTest, CountDeath_NothingUnderWay_IsNone) {
  CrashLedger ledger;
  ledger.Begin(RiskyWork::kServing, Values(1));
  ledger.End(RiskyWork::kServing, Values(1));
  EXPECT_FALSE(ledger.CountDeath(false, kStart));
  EXPECT_FALSE(ledger.IsWary(kStart));
  EXPECT_EQ(ledger, CrashLedger());
}

TEST(CrashLedgerTest, CountDeath_ThriceUnderTheSameValues_PutsThemAside) {
  CrashLedger ledger;
  for (int i = 0; i < kDeathsMax; ++i) {
    EXPECT_EQ(ledger.DeathsOf(Values(1)), i);
    EXPECT_FALSE(ledger.IsPutAside(Values(1)));
    DieLoading(ledger, Values(1), kStart + hours(100 * i));
  }
  EXPECT_TRUE(ledger.IsPutAside(Values(1)));
  EXPECT_FALSE(ledger.IsPutAside(Values(2)));
  // Weeks apart: no pause.
  EXPECT_FALSE(ledger.PausedUntil(kStart + hours(200)).has_value());
}

TEST(CrashLedgerTest, End_ValuesThatSurvive_AreNoLongerSuspected) {
  CrashLedger ledger;
  DieLoading(ledger, Values(1), kStart);
  DieLoading(ledger, Values(1), kStart);
  ledger.Begin(RiskyWork::kActivation, Values(1));
  ledger.End(RiskyWork::kActivation, Values(1));
  EXPECT_EQ(ledger.DeathsOf(Values(1)), 0);
}

TEST(CrashLedgerTest, CountDeath_WhileTraining_SuspectsNoValues) {
  CrashLedger ledger;
  ledger.Begin(RiskyWork::kTraining, Values(1));
  EXPECT_TRUE(ledger.CountDeath(false, kStart));
  EXPECT_EQ(ledger.DeathsOf(Values(1)), 0);
  EXPECT_TRUE(ledger.IsWary(kStart));
  EXPECT_FALSE(ledger.IsWary(kStart + hours(25)));
}

TEST(CrashLedgerTest, CountDeath_SessionAndMarksTogether_AreOneDeath) {
  CrashLedger ledger;
  for (int i = 0; i < 2; ++i) {
    ledger.Begin(RiskyWork::kTraining, Values(1));
    ledger.Begin(RiskyWork::kActivation, Values(2));
    ledger.Begin(RiskyWork::kServing, Values(2));
    EXPECT_TRUE(ledger.CountDeath(/*session_died=*/true, kStart));
  }
  EXPECT_EQ(ledger.DeathsOf(Values(2)), 2);
  EXPECT_FALSE(ledger.PausedUntil(kStart).has_value());
  EXPECT_TRUE(ledger.CountDeath(true, kStart));
  EXPECT_TRUE(ledger.PausedUntil(kStart).has_value());
}

// Three deaths within a day, of which `loading` while something was loaded.
Time DieThrice(CrashLedger& ledger, int loading, Time now) {
  for (int i = 0; i < kDeathsMax; ++i) {
    EXPECT_FALSE(ledger.PausedUntil(now).has_value());
    now += hours(8);
    if (i < loading) {
      DieLoading(ledger, Values(static_cast<uint8_t>(i)), now);
    } else {
      EXPECT_TRUE(ledger.CountDeath(/*session_died=*/true, now));
    }
  }
  return now;
}

TEST(CrashLedgerTest, CountDeath_ThriceWithinADay_PausesLongerEachTime) {
  const struct {
    int loading;
    std::vector<int> pauses;  // in hours
  } rows[] = {{0, {1, 24, 24 * 7, 24 * 7}},
              {1, {24 * 7, 24 * 14, 24 * 28, 24 * 28}},
              {3, {24 * 7, 24 * 14, 24 * 28, 24 * 28}}};
  for (const auto& row : rows) {
    CrashLedger ledger;
    Time now = kStart;
    for (const int pause : row.pauses) {
      now = DieThrice(ledger, row.loading, now);
      ASSERT_TRUE(ledger.PausedUntil(now).has_value());
      EXPECT_EQ(*ledger.PausedUntil(now) - now, hours(pause));
      EXPECT_TRUE(ledger.IsWary(now));
      ledger.TrainingSurvived(now);  // what was under way; no proof yet
      now += hours(pause);
      EXPECT_FALSE(ledger.PausedUntil(now).has_value());
    }
    ledger.TrainingSurvived(now);
    now = DieThrice(ledger, row.loading, now);
    EXPECT_EQ(*ledger.PausedUntil(now) - now, hours(row.pauses[0]));
  }
}

TEST(CrashLedgerTest, TrainingProgressed_BetweenDeaths_NeverPauses) {
  CrashLedger ledger;
  for (int i = 0; i < 20; ++i) {
    ledger.Begin(RiskyWork::kTraining, Values(1));
    EXPECT_TRUE(ledger.CountDeath(true, kStart + std::chrono::minutes(i)));
    EXPECT_FALSE(ledger.PausedUntil(kStart + hours(1)).has_value()) << i;
    if (i % 2 == 1) ledger.TrainingProgressed();
  }
  EXPECT_FALSE(ledger.IsWary(kStart + hours(1)));
}

TEST(CrashLedgerTest, TrainingProgressed_ForgivesNoDeathAtLoading) {
  CrashLedger ledger;
  for (int i = 0; i < kDeathsMax; ++i) {
    EXPECT_FALSE(ledger.PausedUntil(kStart).has_value());
    DieLoading(ledger, Values(static_cast<uint8_t>(i)), kStart);
    ledger.TrainingProgressed();
  }
  ASSERT_TRUE(ledger.PausedUntil(kStart).has_value());
  EXPECT_EQ(*ledger.PausedUntil(kStart) - kStart, hours(24 * 7));
  ledger.TrainingProgressed();
  EXPECT_TRUE(ledger.PausedUntil(kStart).has_value());
}

TEST(CrashLedgerTest, CountDeath_MoreThanADayApart_NeverPauses) {
  CrashLedger ledger;
  for (int i = 0; i < 20; ++i) {
    const Time now = kStart + hours(13 * i);  // two within any 24 hours
    EXPECT_TRUE(ledger.CountDeath(true, now));
    EXPECT_FALSE(ledger.PausedUntil(now).has_value()) << i;
  }
}

TEST(CrashLedgerTest, PausedUntil_ClockSetBack_IsNoLongerPauseThanAny) {
  CrashLedger ledger;
  for (int i = 0; i < kDeathsMax; ++i) ledger.CountDeath(true, kStart);
  EXPECT_TRUE(ledger.PausedUntil(kStart - hours(24)).has_value());
  EXPECT_FALSE(ledger.PausedUntil(kStart - hours(24 * 365)).has_value());
}

TEST(CrashLedgerTest, CountDeath_ManyValuesAndMarks_IsBounded) {
  CrashLedger ledger;
  for (int i = 0; i < 100; ++i) {
    ledger.Begin(RiskyWork::kServing, Values(static_cast<uint8_t>(i)));
    if (i % 7 == 0) {
      ledger.CountDeath(false, kStart + hours(100 * i));
      ASSERT_THAT(CrashLedger::Restore(ledger.Save()), IsOk()) << i;
    }
  }
  EXPECT_LT(ledger.Save().size(), 1200U);
}

CrashLedger ArbitraryLedger() {
  CrashLedger ledger;
  Time now = kStart;
  const int steps = *rc::gen::inRange(0, 40);
  for (int i = 0; i < steps; ++i) {
    const auto work = static_cast<RiskyWork>(*rc::gen::inRange(1, 4));
    const crypto::Digest what = Values(*rc::gen::inRange<uint8_t>(0, 20));
    now += hours(*rc::gen::inRange(-2, 20));
    switch (*rc::gen::inRange(0, 5)) {
      case 4:
        ledger.TrainingProgressed();
        break;
      case 0:
      case 1:
        ledger.Begin(work, what);
        break;
      case 2:
        ledger.End(work, what);
        break;
      default:
        ledger.CountDeath(*rc::gen::arbitrary<bool>(), now);
    }
  }
  return ledger;
}

TEST(CrashLedgerTest, Restore_WhatSaveWrote_IsTheSame) {
  EXPECT_TRUE(rc::check([] {
    const CrashLedger ledger = ArbitraryLedger();
    const Result<CrashLedger> restored = CrashLedger::Restore(ledger.Save());
    RC_ASSERT(restored.ok());
    RC_ASSERT(*restored == ledger);
  }));
}

TEST(CrashLedgerTest, Restore_DamagedBytes_AreRefusedOrCanonical) {
  EXPECT_TRUE(rc::check([] {
    Bytes bytes = ArbitraryLedger().Save();
    if (*rc::gen::arbitrary<bool>()) {
      bytes.resize(*rc::gen::inRange<size_t>(0, bytes.size()));
    } else {
      const auto at = *rc::gen::inRange<size_t>(0, bytes.size());
      bytes[at] = static_cast<uint8_t>(bytes[at] ^ *rc::gen::inRange(1, 256));
    }
    const Result<CrashLedger> restored = CrashLedger::Restore(bytes);
    if (restored.ok()) {
      RC_ASSERT(restored->Save() == bytes);
    } else {
      RC_ASSERT(restored.status().code() == StatusCode::kDataLoss);
    }
  }));
  Bytes longer = CrashLedger().Save();
  longer.push_back(0);
  EXPECT_THAT(CrashLedger::Restore(longer), StatusIs(StatusCode::kDataLoss));
}

}  // namespace
}  // namespace selvage::client

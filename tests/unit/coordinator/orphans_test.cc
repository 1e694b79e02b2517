#include "coordinator/orphans.h"

#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "coordinator/store/file_blob_store.h"
#include "coordinator/store/memory_store.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fault_file_system.h"
#include "tests/testing/status_matchers.h"

namespace selvage::coordinator {
namespace {

using ::selvage::test::FakeClock;
using ::selvage::test::FaultFileSystem;
using ::selvage::test::IsOk;
using ::selvage::test::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr Duration kMinute = std::chrono::minutes(1);

Time At(int minutes) { return Time(std::chrono::minutes(minutes)); }

TEST(OrphanWatchTest, Due_OnlyAfterTheWholeAge_AndNotWhatIsNamed) {
  OrphanWatch<std::string> watch;
  EXPECT_THAT(watch.Due({"a", "b"}, {"b"}, At(0), kOrphanAge), IsEmpty());
  EXPECT_THAT(watch.Due({"a", "b", "c"}, {"b"}, At(59), kOrphanAge), IsEmpty());
  EXPECT_THAT(watch.Due({"a", "b", "c"}, {"b"}, At(60), kOrphanAge),
              ElementsAre("a"));
  // Still there: still due.
  EXPECT_THAT(watch.Due({"a", "c"}, {}, At(119), kOrphanAge),
              ElementsAre("a", "c"));
}

TEST(OrphanWatchTest, Due_NamedOrGoneInBetween_BeginsAnew) {
  OrphanWatch<std::string> watch;
  EXPECT_THAT(watch.Due({"named", "gone"}, {}, At(0), kOrphanAge), IsEmpty());
  EXPECT_THAT(watch.Due({"named"}, {"named"}, At(30), kOrphanAge), IsEmpty());
  EXPECT_THAT(watch.Due({"named", "gone"}, {}, At(61), kOrphanAge), IsEmpty());
  EXPECT_THAT(watch.Due({"named", "gone"}, {}, At(121), kOrphanAge),
              ElementsAre("named", "gone"));
}

class OrphanCollectorTest : public ::testing::Test {
 protected:
  crypto::Digest Put(const std::string& text, bool named) {
    const auto digest = blobs_->Put(AsBytes(text));
    EXPECT_THAT(digest, IsOk());
    if (named) {
      EXPECT_THAT(store_.PutArtefact(*digest, text.size()), IsOk());
    }
    return *digest;
  }
  OrphanCollector::Counts Collect(OrphanCollector& collector) {
    const auto counts = collector.Collect(clock_.Now());
    EXPECT_THAT(counts, IsOk());
    return counts.ok() ? *counts : OrphanCollector::Counts{};
  }

  FakeClock clock_;
  FaultFileSystem files_;
  SeededRandom random_{1};
  MemoryStore store_{clock_, random_};
  std::unique_ptr<FileBlobStore> blobs_ =
      *FileBlobStore::Open(files_, "/blobs", "one");
  OrphanCollector collector_{store_, *blobs_};
};

TEST_F(OrphanCollectorTest, Orphan_IsSetAsideAndThenGoes_NamedOnesStay) {
  const crypto::Digest kept = Put("kept", true);
  const crypto::Digest orphan = Put("orphan", false);
  Collect(collector_);
  clock_.Advance(kOrphanAge);
  EXPECT_EQ(Collect(collector_).set_aside, 1u);
  EXPECT_EQ(*blobs_->Read(orphan, 100), ToBytes("orphan")) << "still reads";
  Collect(collector_);
  clock_.Advance(kOrphanAge - kMinute);
  EXPECT_EQ(Collect(collector_).artefacts, 0u);
  clock_.Advance(kMinute);
  EXPECT_EQ(Collect(collector_).artefacts, 1u);
  EXPECT_THAT(blobs_->Open(orphan), StatusIs(StatusCode::kNotFound));
  EXPECT_EQ(*blobs_->Read(kept, 100), ToBytes("kept"));
}

TEST_F(OrphanCollectorTest, SetAsideAndNamedAfterAll_ComesBack) {
  const crypto::Digest digest = Put("late", false);
  Collect(collector_);
  clock_.Advance(kOrphanAge);
  Collect(collector_);
  ASSERT_THAT(store_.PutArtefact(digest, 4), IsOk());
  EXPECT_EQ(Collect(collector_).put_back, 1u);
  EXPECT_THAT(*blobs_->List(), ElementsAre(digest));
  EXPECT_THAT(*blobs_->ListSetAside(), IsEmpty());
}

TEST_F(OrphanCollectorTest, StoredAgainWhileSetAside_StaysWhenTheOldOneGoes) {
  const crypto::Digest digest = Put("twice", false);
  Collect(collector_);
  clock_.Advance(kOrphanAge);
  Collect(collector_);
  Collect(collector_);
  // This process knows the blob to be whole, but not to stay.
  EXPECT_EQ(Put("twice", false), digest);
  clock_.Advance(kOrphanAge);
  EXPECT_EQ(Collect(collector_).artefacts, 1u);
  EXPECT_EQ(*blobs_->Read(digest, 100), ToBytes("twice"));
}

TEST_F(OrphanCollectorTest, Joined_IsSetAsideWithItsListAndReads) {
  const crypto::Digest piece = Put("piece", true);
  const std::vector<crypto::Digest> pieces = {piece, piece};
  const auto joined = blobs_->PutJoined(pieces);
  ASSERT_THAT(joined, IsOk());
  Collect(collector_);
  clock_.Advance(kOrphanAge);
  EXPECT_EQ(Collect(collector_).set_aside, 1u);
  EXPECT_EQ(*blobs_->Read(*joined, 100), ToBytes("piecepiece"));
  Collect(collector_);
  clock_.Advance(kOrphanAge);
  Collect(collector_);
  EXPECT_THAT(blobs_->Open(*joined), StatusIs(StatusCode::kNotFound));
  EXPECT_EQ(*blobs_->Read(piece, 100), ToBytes("piece"));
}

TEST_F(OrphanCollectorTest, PartialsWithoutRows_GoAfterTheAge) {
  ASSERT_THAT(blobs_->PutSealed("p1", AsBytes("x")), IsOk());
  EXPECT_EQ(Collect(collector_).sealed, 0u);
  clock_.Advance(kOrphanAge);
  EXPECT_EQ(Collect(collector_).sealed, 1u);
  EXPECT_THAT(*blobs_->ListSealed(), IsEmpty());
}

TEST_F(OrphanCollectorTest, CollectAlone_TakesAllThatNoRowNames_AtOnce) {
  const crypto::Digest kept = Put("kept", true);
  const crypto::Digest back = Put("back", true);
  const crypto::Digest aside = Put("aside", false);
  Put("orphan", false);
  ASSERT_THAT(blobs_->PutSealed("p1", AsBytes("x")), IsOk());
  ASSERT_THAT(blobs_->SetAside(back), IsOk());
  ASSERT_THAT(blobs_->SetAside(aside), IsOk());
  const auto counts = collector_.CollectAlone();
  ASSERT_THAT(counts, IsOk());
  EXPECT_EQ(counts->artefacts, 2u);
  EXPECT_EQ(counts->sealed, 1u);
  EXPECT_EQ(counts->put_back, 1u);
  EXPECT_THAT(*blobs_->List(), ::testing::UnorderedElementsAre(kept, back));
  EXPECT_THAT(*blobs_->ListSetAside(), IsEmpty());
}

// Processes over one folder that store blobs, name them at last within the age,
// or never; all collect; any operation of the file system may fail, any process
// may die, the power may fail. What a row names always reads.
TEST(OrphanCollectorSimTest, ProcessesThatStoreCollectAndDie_NothingNamedGoes) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(seed);
    SeededRandom random(seed);
    const auto draw = [&](uint64_t n) { return random.Next() % n; };
    FakeClock clock;
    FaultFileSystem files;
    MemoryStore store(clock, random);
    struct Process {
      std::unique_ptr<FileBlobStore> blobs;
      std::unique_ptr<OrphanCollector> collector;
      std::map<crypto::Digest, Time> stored;  // to be named until then
    };
    std::vector<Process> processes(3);
    uint64_t starts = 0;
    const auto start = [&](Process& process) {
      process.collector.reset();
      process.stored.clear();
      process.blobs =
          *FileBlobStore::Open(files, "/blobs", "w" + std::to_string(starts++));
      process.collector =
          std::make_unique<OrphanCollector>(store, *process.blobs);
    };
    for (Process& process : processes) start(process);
    std::map<crypto::Digest, std::string> named;
    uint64_t gone = 0;
    for (int step = 0; step < 400; ++step) {
      Process& process = processes[draw(processes.size())];
      switch (draw(8)) {
        case 0:
        case 1:
        case 2: {
          const std::string text = "text " + std::to_string(draw(12));
          if (draw(6) == 0) files.FailAfter(draw(6), StatusCode::kInternal);
          const auto digest = process.blobs->Put(AsBytes(text));
          files.ClearFaults();
          if (digest.ok()) {
            process.stored[*digest] = clock.Now() + kOrphanAge - kMinute;
          }
          break;
        }
        case 3:
          for (const auto& entry : process.stored) {
            if (clock.Now() > entry.second || draw(8) != 0) continue;
            ASSERT_THAT(store.PutArtefact(entry.first, 1), IsOk());
            named[entry.first] = "";
          }
          break;
        case 4:
        case 5: {
          if (draw(4) == 0) files.FailAfter(draw(12), StatusCode::kInternal);
          const auto counts = process.collector->Collect(clock.Now());
          files.ClearFaults();
          if (counts.ok()) gone += counts->artefacts;
          break;
        }
        case 6:
          clock.Advance(kMinute * static_cast<int64_t>(1 + draw(50)));
          break;
        default:
          if (draw(3) != 0) break;
          if (draw(3) != 0) {
            start(process);
            break;
          }
          for (Process& every : processes) every.blobs.reset();
          files.Crash();  // a rename is whole or has not happened
          for (Process& every : processes) start(every);
      }
      for (const auto& entry : named) {
        const auto read = process.blobs->Read(entry.first, 100);
        ASSERT_THAT(read, IsOk()) << step;
      }
    }
    EXPECT_GT(gone, 0u);
  }
}

}  // namespace
}  // namespace selvage::coordinator

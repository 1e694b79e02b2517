#include "cli/doctor.h"

#include <gmock/gmock.h>

namespace selvage::cli {
namespace {

using std::chrono::hours;
using std::chrono::seconds;

constexpr Time kNow = FromMicros(1'700'000'000'000'000);

TEST(DoctorTest, JudgeCertificate_Expiry) {
  EXPECT_EQ(JudgeCertificate(kNow + hours(24 * 90), kNow).health, Health::kOk);
  EXPECT_EQ(JudgeCertificate(kNow + hours(24), kNow).health, Health::kWarning);
  EXPECT_EQ(JudgeCertificate(kNow, kNow).health, Health::kFailure);
  EXPECT_EQ(JudgeCertificate(kNow, kNow).code, ExitCode::kAuth);
}

TEST(DoctorTest, JudgeClock_Difference) {
  EXPECT_EQ(JudgeClock(kNow, kNow + seconds(1), {}).health, Health::kOk);
  EXPECT_EQ(JudgeClock(kNow, kNow - seconds(3), {}).health, Health::kWarning);
  EXPECT_EQ(JudgeClock(kNow, kNow - seconds(3), seconds(5)).health,
            Health::kOk);
  EXPECT_EQ(JudgeClock(kNow, kNow + hours(1), {}).health, Health::kFailure);
}

TEST(DoctorTest, JudgeDisk_FreeBytes) {
  EXPECT_EQ(JudgeDisk(uint64_t{5} << 30).health, Health::kOk);
  EXPECT_EQ(JudgeDisk(uint64_t{500} << 20).health, Health::kWarning);
  EXPECT_EQ(JudgeDisk(1 << 20).health, Health::kFailure);
}

TEST(DoctorTest, JudgeVersion_Skew) {
  EXPECT_EQ(JudgeVersion("0.1.0", "0.1.0", 1).health, Health::kOk);
  EXPECT_EQ(JudgeVersion("0.1.0", "0.2.0", 1).health, Health::kWarning);
  EXPECT_EQ(JudgeVersion("0.1.0", "0.1.0", 0).health, Health::kFailure);
}

TEST(DoctorTest, JudgeBlas_Reference_Warns) {
  const auto judge = [](const std::string& data) {
    return JudgeBlas(R"({"schema_version":1,"data":)" + data + "}").health;
  };
  EXPECT_EQ(judge(R"({"openblas":true,"blas_library":"libopenblas.so.0"})"),
            Health::kOk);
  EXPECT_EQ(judge(R"({"openblas":false,"blas_library":"libmkl_rt.so"})"),
            Health::kOk);
  EXPECT_EQ(judge(R"({"openblas":false,"blas_library":"blas/libblas.so.3"})"),
            Health::kWarning);
  EXPECT_EQ(JudgeBlas("no JSON").health, Health::kWarning);
}

TEST(DoctorTest, WorstOf_FirstFailure_Decides) {
  EXPECT_EQ(WorstOf({}), ExitCode::kOk);
  EXPECT_EQ(WorstOf({{"a", Health::kWarning, "", "", ExitCode::kOk},
                     {"b", Health::kFailure, "", "", ExitCode::kUnavailable},
                     {"c", Health::kFailure, "", "", ExitCode::kAuth}}),
            ExitCode::kUnavailable);
}

}  // namespace
}  // namespace selvage::cli

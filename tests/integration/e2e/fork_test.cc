// An app that forks around its sessions, against a real coordinator.
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/integration/faults/harness.h"

namespace selvage::test {
namespace {

using ::testing::HasSubstr;

class ForkTest : public ::testing::Test {
 protected:
  void Run(const std::string& scenario) {
    const Path root = FreshDirectory();
    CoordinatorUnderTest server(root / "data");
    ASSERT_TRUE(server.serving()) << server.process().output();
    ASSERT_TRUE(server.CreatePopulation("wearables").ok());
    const Path bundle = root / "bundle.json";
    std::ofstream(bundle) << Take(server.CreateBundle(2, "wearables"));
    ChildProcess app({SELVAGE_FORK_APP, scenario, bundle.string(),
                      SELVAGE_SENSOR_MODEL, (root / "app").string()},
                     {{"OPENBLAS_NUM_THREADS", "1"}});
    EXPECT_EQ(app.WaitForExit(std::chrono::minutes(3)), 0);
    output_ = app.output();
    std::filesystem::remove_all(root);
  }
  std::string output_;
};

TEST_F(ForkTest, AfterClose_ChildHasAClientOfItsOwn) {
  Run("after-close");
  EXPECT_THAT(output_, HasSubstr("parent predicted 1\n"));
  EXPECT_THAT(output_, HasSubstr("child enrolled 1 \n"
                                 "child trained 1\n"
                                 "child predicted 1\n"
                                 "child ended with 0\n"
                                 "parent again 1\n"));
}

TEST_F(ForkTest, WhileOpen_ChildIsToldAndParentGoesOn) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "AddressSanitizer of g++ 12 does not let go of its "
                  "allocator's locks in a child (LLVM's pull request 75290)";
#endif
  Run("while-open");
  EXPECT_THAT(output_, HasSubstr("parent predicted 1\n"
                                 "child counts FAILED_PRECONDITION this client "
                                 "was opened by process "));
  EXPECT_THAT(output_, HasSubstr("\nchild closes this client was opened by "));
  EXPECT_THAT(output_, HasSubstr("\nchild alone FAILED "));
  EXPECT_THAT(output_, HasSubstr("this process was forked while"));
  EXPECT_THAT(output_, HasSubstr("\nchild ended with 0\nparent again 1\n"));
}

}  // namespace
}  // namespace selvage::test

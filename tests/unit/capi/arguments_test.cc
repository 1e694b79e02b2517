// What a host can get wrong, and what it is told.
#include <array>
#include <cstddef>
#include <cstring>
#include <functional>
#include <thread>

#include "tests/unit/capi/app_fixture.h"

namespace selvage::test {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class ArgumentsTest : public AppFixture {
 protected:
  selvage_code OpenCode() { return selvage_open(&options_, &client_); }
};

TEST_F(ArgumentsTest, Versions_AreThere) {
  EXPECT_EQ(selvage_abi_version(), SELVAGE_ABI_VERSION);
  EXPECT_STRNE(selvage_version(), "");
  EXPECT_STREQ(selvage_code_name(SELVAGE_INVALID_ARGUMENT), "INVALID_ARGUMENT");
  EXPECT_STREQ(selvage_code_name(-5), "UNKNOWN");
  EXPECT_STREQ(selvage_outcome_name(SELVAGE_CONTRIBUTED), "CONTRIBUTED");
  EXPECT_STREQ(selvage_outcome_name(99), "UNKNOWN");
}

// A handle of every wrong kind, for every function that takes a client.
TEST_F(ArgumentsTest, WrongHandles_AreInvalidArgument) {
  selvage_cancel* cancel = nullptr;
  ASSERT_EQ(selvage_cancel_create(&cancel), SELVAGE_OK);
  std::array<uint64_t, 32> junk{};
  for (void* wrong : {static_cast<void*>(nullptr), static_cast<void*>(cancel),
                      static_cast<void*>(junk.data())}) {
    auto* client = static_cast<selvage_client*>(wrong);
    uint64_t count = 7;
    selvage_model* model = nullptr;
    selvage_names* names = nullptr;
    selvage_scores* scores = nullptr;
    selvage_prediction* prediction = nullptr;
    selvage_run_result* result = nullptr;
    selvage_outbox* outbox = nullptr;
    selvage_audit_log* audit = nullptr;
    char* text = nullptr;
    selvage_model_files files = {};
    files.struct_size = sizeof files;
    selvage_collection collection = {};
    collection.struct_size = sizeof collection;
    const std::vector<selvage_code> codes = {
        selvage_install_model(client, &files),
        selvage_predict(client, "t", &junk, 8, 1, &prediction),
        selvage_get_model(client, "t", &model),
        selvage_list_tasks(client, &names),
        selvage_evaluate(client, "t", 0, nullptr, 0, 1, &scores),
        selvage_declare_collection(client, "c", &collection),
        selvage_add_example(client, "c", nullptr, nullptr),
        selvage_delete_example(client, 1),
        selvage_count_examples(client, "c", &count),
        selvage_run_once(client, nullptr, nullptr, &result),
        selvage_train_locally(client, "t", nullptr, nullptr, nullptr),
        selvage_inspect_outbox(client, &outbox),
        selvage_audit(client, 1, &audit),
        selvage_forget_me(client, 0),
        selvage_device_id(client, &text),
    };
    for (const selvage_code code : codes) {
      EXPECT_EQ(code, SELVAGE_INVALID_ARGUMENT);
    }
    EXPECT_EQ(count, 7U);
    EXPECT_THAT(selvage_last_error(), HasSubstr("client"));
    selvage_close(client);
  }
  EXPECT_EQ(selvage_cancel_now(reinterpret_cast<selvage_cancel*>(junk.data())),
            SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_cancel_now(nullptr), SELVAGE_INVALID_ARGUMENT);
  selvage_cancel_destroy(reinterpret_cast<selvage_cancel*>(junk.data()));
  selvage_cancel_destroy(nullptr);
  selvage_cancel_destroy(cancel);
}

TEST_F(ArgumentsTest, Nulls_AreInvalidArgument) {
  Open();
  EXPECT_EQ(selvage_open(nullptr, &client_), SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_open(&options_, nullptr), SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_cancel_create(nullptr), SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_install_model(client_, nullptr), SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_predict(client_, nullptr, "x", 1, 1, nullptr),
            SELVAGE_INVALID_ARGUMENT);
  selvage_prediction* prediction = nullptr;
  EXPECT_EQ(selvage_predict(client_, "t", nullptr, 8, 1, &prediction),
            SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_predict(client_, "t", "x", 1, 0, &prediction),
            SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_predict(client_, "t", "x", 1, UINT64_MAX, &prediction),
            SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_get_model(client_, nullptr, nullptr),
            SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_list_tasks(client_, nullptr), SELVAGE_INVALID_ARGUMENT);
  selvage_scores* scores = nullptr;
  EXPECT_EQ(selvage_evaluate(client_, "t", 0, nullptr, 1, 1, &scores),
            SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_evaluate(client_, "t", 99, nullptr, 0, 1, &scores),
            SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_declare_collection(client_, "c", nullptr),
            SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_add_example(client_, "c", nullptr, nullptr),
            SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_add_example(client_, nullptr, nullptr, nullptr),
            SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_count_examples(client_, nullptr, nullptr),
            SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_run_once(client_, nullptr, nullptr, nullptr),
            SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_train_locally(client_, nullptr, nullptr, nullptr, nullptr),
            SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_inspect_outbox(client_, nullptr), SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_audit(client_, 1, nullptr), SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_device_id(client_, nullptr), SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_forget_me(client_, 0x80), SELVAGE_INVALID_ARGUMENT);
  selvage_free(nullptr);
}

TEST_F(ArgumentsTest, StructSize_ThatMakesNoSense_IsRefused) {
  for (const uint32_t size : {0U, 3U, 8U, 70'000U, UINT32_MAX}) {
    options_.struct_size = size;
    EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT) << size;
    EXPECT_THAT(selvage_last_error(), HasSubstr("struct_size"));
  }
  EXPECT_EQ(client_, nullptr);
}

// A host that was compiled against a newer header.
TEST_F(ArgumentsTest, StructSize_Newer_IsTakenIfItAsksForNothingNew) {
  struct {
    selvage_options options;
    uint64_t news[4];
  } newer = {options_, {}};
  newer.options.struct_size = sizeof newer;
  newer.news[2] = 1;
  EXPECT_EQ(selvage_open(&newer.options, &client_), SELVAGE_INVALID_ARGUMENT);
  EXPECT_THAT(selvage_last_error(), HasSubstr("does not have"));
  newer.news[2] = 0;
  EXPECT_EQ(selvage_open(&newer.options, &client_), SELVAGE_OK)
      << selvage_last_error();
}

TEST_F(ArgumentsTest, StructSize_OfInnerStructs_IsChecked) {
  selvage_callbacks callbacks = {};
  options_.callbacks = &callbacks;
  EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT);
  EXPECT_THAT(selvage_last_error(), StartsWith("callbacks"));
  callbacks.struct_size = sizeof callbacks;
  callbacks.log_level = 9;
  EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT);
  options_.callbacks = nullptr;
  selvage_privacy_floor floor = {};
  options_.floor = &floor;
  EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT);
  floor.struct_size = sizeof floor;
  floor.collection_count = 3;
  EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT);
  options_.floor = nullptr;
  selvage_limits limits = {};
  options_.limits = &limits;
  EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT);
  limits.struct_size = sizeof limits;
  limits.threads_max = -1;
  EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT);
  options_.limits = nullptr;
  selvage_data_source source = {};
  options_.data_source = &source;
  EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT);
  source.struct_size = sizeof source;
  EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT);
  options_.data_source = nullptr;
  engine_.train = nullptr;
  EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT);
  EXPECT_THAT(selvage_last_error(), HasSubstr("train"));
  EXPECT_EQ(tiny_.closed, 0);
}

// A host that was compiled before callbacks had `sign`.
TEST_F(ArgumentsTest, StructSize_CallbacksOfTheFirstVersion_AreTaken) {
  selvage_callbacks callbacks = {};
  const auto size = static_cast<uint32_t>(offsetof(selvage_callbacks, sign));
  EXPECT_EQ(size, 8 + 8 * sizeof(void*));
  callbacks.struct_size = size;
  callbacks.identity_public_key_size = 7;  // beyond its end
  options_.callbacks = &callbacks;
  EXPECT_EQ(OpenCode(), SELVAGE_OK) << selvage_last_error();
  selvage_close(client_);
  client_ = nullptr;
  callbacks.struct_size = size - 8;
  EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT);
}

TEST_F(ArgumentsTest, IdentityKey_HalfOrNoKey_IsRefused) {
  selvage_callbacks callbacks = {};
  callbacks.struct_size = sizeof callbacks;
  options_.callbacks = &callbacks;
  uint8_t key[91] = {0x30, 0x59};
  callbacks.identity_public_key = key;
  callbacks.identity_public_key_size = sizeof key;
  EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT);
  EXPECT_THAT(selvage_last_error(), HasSubstr("belong together"));
  callbacks.sign = [](void*, const uint8_t*, uint8_t*) {
    return selvage_code{SELVAGE_OK};
  };
  EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT);
  EXPECT_THAT(selvage_last_error(),
              HasSubstr("callbacks.identity_public_key: "));
  callbacks.identity_public_key_size = UINT64_MAX;
  EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT);
  callbacks.identity_public_key_size = 0;
  EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT);
  callbacks.identity_public_key = nullptr;
  EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT);
}

TEST_F(ArgumentsTest, Options_Unknown_AreRefused) {
  options_.flags = 0x40;
  EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT);
  options_.flags = 0;
  options_.population = "Not A Name";
  EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT);
  EXPECT_THAT(selvage_last_error(), HasSubstr("population"));
  options_.population = nullptr;
  EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT);
  options_.population = "demo";
  options_.engine_library = "libother.so";
  EXPECT_EQ(OpenCode(), SELVAGE_INVALID_ARGUMENT);
}

TEST_F(ArgumentsTest, Tensors_ThatDoNotFit_AreRefused) {
  Open();
  const float x[2] = {1, 2};
  const int64_t shape[1] = {3};
  selvage_tensor tensors[2] = {};
  tensors[0].struct_size = tensors[1].struct_size = sizeof tensors[0];
  tensors[0].data = x;
  tensors[0].size = sizeof x;
  tensors[1] = tensors[0];
  selvage_example example = {};
  example.struct_size = sizeof example;
  example.inputs = tensors;
  example.input_count = 2;
  const auto add = [&] {
    return selvage_add_example(client_, "readings", &example, nullptr);
  };
  EXPECT_EQ(add(), SELVAGE_OK) << selvage_last_error();
  tensors[1].dtype = SELVAGE_F32;
  EXPECT_EQ(add(), SELVAGE_INVALID_ARGUMENT);
  tensors[1].rank = 1;
  EXPECT_EQ(add(), SELVAGE_INVALID_ARGUMENT);  // no shape
  tensors[1].shape = shape;
  EXPECT_EQ(add(), SELVAGE_INVALID_ARGUMENT);
  EXPECT_THAT(selvage_last_error(), HasSubstr("its shape says 12"));
  tensors[1].dtype = 77;
  EXPECT_EQ(add(), SELVAGE_INVALID_ARGUMENT);
  tensors[1].dtype = SELVAGE_DTYPE_ANY;
  tensors[1].data = nullptr;
  EXPECT_EQ(add(), SELVAGE_INVALID_ARGUMENT);
  tensors[1].data = x;
  tensors[1].struct_size = sizeof tensors[1] + 8;
  EXPECT_EQ(add(), SELVAGE_INVALID_ARGUMENT);
  tensors[1].struct_size = sizeof tensors[1];
  tensors[0].struct_size = sizeof tensors[0] + 4;  // would not be aligned
  EXPECT_EQ(add(), SELVAGE_INVALID_ARGUMENT);
  tensors[0].struct_size = sizeof tensors[0];
  example.flags = 0x10;
  EXPECT_EQ(add(), SELVAGE_INVALID_ARGUMENT);
  example.flags = SELVAGE_EXAMPLE_LOCAL_ONLY;
  example.input_count = 17;
  EXPECT_EQ(add(), SELVAGE_INVALID_ARGUMENT);
  uint64_t count = 0;
  EXPECT_EQ(selvage_count_examples(client_, "readings", &count), SELVAGE_OK);
  EXPECT_EQ(count, 1U);
}

TEST_F(ArgumentsTest, Budget_Unknown_IsRefused) {
  Open();
  selvage_budget budget = {};
  budget.struct_size = sizeof budget;
  budget.energy = 5;
  selvage_run_result* out = nullptr;
  EXPECT_EQ(selvage_run_once(client_, &budget, nullptr, &out),
            SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(selvage_run_once(client_, nullptr,
                             reinterpret_cast<selvage_cancel*>(&budget), &out),
            SELVAGE_INVALID_ARGUMENT);
  EXPECT_EQ(out, nullptr);
}

TEST_F(ArgumentsTest, LastError_EachThread_HasItsOwn) {
  EXPECT_EQ(selvage_open(nullptr, &client_), SELVAGE_INVALID_ARGUMENT);
  const std::string mine = selvage_last_error();
  EXPECT_EQ(mine, "options is NULL");
  std::string fresh = "?";
  std::string others;
  std::thread([&] {
    fresh = selvage_last_error();
    (void)selvage_cancel_now(nullptr);
    others = selvage_last_error();
  }).join();
  EXPECT_EQ(fresh, "");
  EXPECT_EQ(others, "cancel is NULL");
  EXPECT_EQ(selvage_last_error(), mine);
  Open();
  EXPECT_STREQ(selvage_last_error(), "");
}

TEST_F(ArgumentsTest, Errors_InCpp_AreExceptions) {
  try {
    host::Client client(host::Options{});
    FAIL();
  } catch (const host::Error& error) {
    EXPECT_EQ(error.code(), SELVAGE_INVALID_ARGUMENT);
    EXPECT_THAT(error.what(), StartsWith("INVALID_ARGUMENT: "));
  }
}

}  // namespace
}  // namespace selvage::test

// The verbs against a fake admin service over real TLS.
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include <gmock/gmock.h>

#include "cli/app.h"
#include "crypto/digest.h"
#include "plan/checkpoint.h"
#include "plan/program.h"
#include "plan/task.h"
#include "tests/integration/cli/fake_admin.h"
#include "tests/unit/cli/cli_fixture.h"

namespace selvage::cli {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

constexpr const char* kTask =
    "name: fashion\npopulation: demo\nprogram: model.yaml\n"
    "strategy: {num_rounds: 3, cohort: 2}\n";

class CliTest : public test::CliFixture {
 protected:
  CliTest() : admin_(directory_ / "coordinator") {
    Write("model.py", "def forward(self, x):\n    return x\n");
    Write("model.yaml",
          "source: model.py\n"
          "tensors: [{name: w, shape: [2], init: zeros}]\n"
          "inputs: [{name: x, dtype: f32, shape: [2]}]\n"
          "metrics: [accuracy, loss]\n");
    Write("task.yaml", kTask);
  }

  int Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(),
                     {"--coordinator", (directory_ / "coordinator").string()});
    out_.str("");
    err_.str("");
    Environment environment = MakeEnvironment();
    return static_cast<int>(RunCli(arguments, environment));
  }
  // The data of an `-o json` answer.
  Json Data() {
    const Json json = Json::parse(out_.str(), nullptr, false);
    EXPECT_TRUE(json.is_object()) << out_.str();
    EXPECT_EQ(json.value("status", ""), "ok") << out_.str();
    return json.value("data", Json());
  }

  v1::Task& AddTask(const std::string& name) {
    v1::Task& task = admin_.tasks[name];
    task.set_name(name);
    task.set_population("demo");
    task.set_state(v1::Task::RUNNING);
    task.set_num_rounds(3);
    task.set_task_file(kTask);
    task.set_program_digest(admin_.AddArtefact("program"));
    task.set_etag("e1");
    return task;
  }
  v1::Round MakeRound(uint64_t number, v1::Round::State state) {
    v1::Round round;
    round.set_task("fashion");
    round.set_number(number);
    round.set_state(state);
    round.set_opened_micros(1'000'000);
    if (state == v1::Round::COMMITTED) round.set_ended_micros(2'000'000);
    return round;
  }
  // Rounds 1 and 3 are seen, 2 only by asking; then the task ends.
  void AddSnapshots(v1::Task::State end) {
    AddTask("fashion");
    for (uint64_t n = 1; n <= 3; ++n) {
      admin_.rounds["fashion"].push_back(MakeRound(n, v1::Round::COMMITTED));
    }
    for (const uint64_t n : {uint64_t{1}, uint64_t{3}}) {
      v1::TaskSnapshot snapshot;
      *snapshot.mutable_task() = admin_.tasks["fashion"];
      snapshot.mutable_task()->set_committed_rounds(n);
      *snapshot.mutable_round() = MakeRound(n, v1::Round::COMMITTED);
      admin_.snapshots.push_back(snapshot);
    }
    admin_.snapshots.back().mutable_task()->set_state(end);
  }
  // A version whose artefacts exist.
  void AddVersion() {
    plan::TensorSpec spec;
    spec.name = "w";
    spec.shape = {2000};
    plan::Program program;
    program.source = "def forward(self, x):\n    return x\n";
    program.table = *plan::TensorTable::Create({spec});
    program.inputs = {{"x", plan::DType::kFloat32, {2}}};
    program.metrics = {"loss"};
    plan::Checkpoint values;
    values.floats.assign(2000, 0.5F);
    v1::ModelVersion version;
    version.set_task("fashion");
    version.set_version(3);
    version.set_program_digest(
        admin_.AddArtefact(plan::CanonicalJson(program)));
    version.set_safetensors_digest(admin_.AddArtefact(
        ToString(plan::WriteSafetensors(program.table, values, {}))));
    admin_.versions["fashion"].push_back(version);
    v1::Task task;
    task.set_name("fashion");
    task.set_plan_digest(admin_.AddArtefact(R"({"a": "plan"})"));
    admin_.tasks.emplace("fashion", task);
    admin_.rounds["fashion"] = {MakeRound(1, v1::Round::COMMITTED),
                                MakeRound(2, v1::Round::ABANDONED),
                                MakeRound(3, v1::Round::COMMITTED)};
  }

  test::FakeAdmin admin_;
};

TEST_F(CliTest, Run_Task_UploadsAndCreates) {
  ASSERT_EQ(Run({"run", directory_ / "task.yaml", "-o", "json"}), 0)
      << err_.str();
  EXPECT_EQ(Data()["name"], "fashion");
  ASSERT_THAT(admin_.created, SizeIs(1));
  EXPECT_EQ(admin_.created[0].task_file(), kTask);
  EXPECT_FALSE(admin_.created[0].request_id().empty());
  EXPECT_FALSE(admin_.created[0].validate_only());
  EXPECT_EQ(admin_.chunks_received, 1);
  EXPECT_THAT(err_.str(), HasSubstr("selvage watch fashion"));
}

TEST_F(CliTest, Run_Again_SendsNoBytesTwice) {
  ASSERT_EQ(Run({"run", directory_ / "task.yaml"}), 0);
  ASSERT_EQ(Run({"run", directory_ / "task.yaml", "--request-id", "r1"}), 0);
  EXPECT_EQ(admin_.chunks_received, 1);
  EXPECT_EQ(admin_.created[1].request_id(), "r1");
}

TEST_F(CliTest, Run_DryRun_CreatesNothing) {
  ASSERT_EQ(Run({"run", directory_ / "task.yaml", "--dry-run", "client"}), 0);
  EXPECT_THAT(admin_.created, IsEmpty());
  EXPECT_THAT(out_.str(), HasSubstr("nothing was sent"));
  ASSERT_EQ(Run({"run", directory_ / "task.yaml", "--dry-run=server"}), 0);
  ASSERT_THAT(admin_.created, SizeIs(1));
  EXPECT_TRUE(admin_.created[0].validate_only());
  EXPECT_EQ(Run({"run", directory_ / "task.yaml", "--dry-run=moon"}), 2);
}

TEST_F(CliTest, Run_Set_ChangesWhatIsSent) {
  ASSERT_EQ(Run({"run", directory_ / "task.yaml", "--set", "name=quick",
                 "--set", "strategy.num_rounds=9"}),
            0)
      << err_.str();
  const auto spec = plan::ParseTaskFile(admin_.created.at(0).task_file());
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->name, "quick");
  EXPECT_EQ(spec->strategy.num_rounds, 9);
  EXPECT_EQ(Run({"run", directory_ / "task.yaml", "--set", "sed=1"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("seed"));
}

TEST_F(CliTest, Run_BadTaskFile_IsUsageBeforeAnythingIsSent) {
  Write("task.yaml", "name: x\npopulation: demo\nprogram: model.yaml\nsed: 1");
  EXPECT_EQ(Run({"run", directory_ / "task.yaml"}), 2);
  EXPECT_THAT(err_.str(), AllOf(HasSubstr("line 4"), HasSubstr("seed")));
  EXPECT_EQ(admin_.chunks_received, 0);
}

TEST_F(CliTest, Run_Watch_PrintsALineARound) {
  AddSnapshots(v1::Task::FINISHED);
  ASSERT_EQ(Run({"run", directory_ / "task.yaml", "--watch"}), 0) << err_.str();
  EXPECT_THAT(out_.str(),
              HasSubstr("round 1/3  COMMITTED  accepted 0 of 0  1.0s\n"
                        "round 2/3  COMMITTED  accepted 0 of 0  1.0s\n"
                        "round 3/3  COMMITTED  accepted 0 of 0  1.0s\n"
                        "task fashion is FINISHED"));
  EXPECT_THAT(out_.str(), Not(HasSubstr("\x1b")));
}

TEST_F(CliTest, Watch_Terminal_RedrawsInPlace) {
  AddSnapshots(v1::Task::FINISHED);
  out_is_terminal_ = true;
  ASSERT_EQ(Run({"watch", "fashion"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("\x1b[4A\r\x1b[0J"));
}

TEST_F(CliTest, Watch_Json_IsOneDocumentALine) {
  AddSnapshots(v1::Task::FINISHED);
  ASSERT_EQ(Run({"watch", "fashion", "-o", "json"}), 0);
  std::istringstream lines(out_.str());
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    EXPECT_EQ(Json::parse(line)["data"]["task"]["name"], "fashion");
  }
  EXPECT_EQ(count, 2);
}

TEST_F(CliTest, Watch_LostConnection_ComesBack) {
  AddSnapshots(v1::Task::FINISHED);
  admin_.watch_error_once =
      grpc::Status(grpc::StatusCode::UNAVAILABLE, "restarting");
  ASSERT_EQ(Run({"watch", "fashion"}), 0) << err_.str();
  EXPECT_EQ(admin_.watches, 2);
  // No round is told twice.
  EXPECT_EQ(out_.str().find("round 1/3"), out_.str().rfind("round 1/3"));
}

TEST_F(CliTest, Wait_StoppedTask_IsAPrecondition) {
  AddSnapshots(v1::Task::STOPPED);
  EXPECT_EQ(Run({"wait", "fashion"}), 6);
  EXPECT_THAT(err_.str(), HasSubstr("was stopped after 3 of 3 rounds"));
}

TEST_F(CliTest, Wait_Json_IsTheTask) {
  AddSnapshots(v1::Task::FINISHED);
  EXPECT_EQ(Run({"wait", "fashion", "-o", "json"}), 0);
  EXPECT_EQ(Data()["state"], "FINISHED");
}

TEST_F(CliTest, Wait_Timeout_Is7) {
  AddTask("fashion");
  admin_.watch_forever = true;
  EXPECT_EQ(Run({"wait", "fashion", "--timeout", "1ms"}), 7);
  EXPECT_EQ(Run({"wait", "fashion", "--timeout", "soon"}), 2);
}

TEST_F(CliTest, Wait_Interrupt_Is130) {
  AddTask("fashion");
  admin_.watch_forever = true;
  std::thread user([this] { interrupt_.Trigger(); });
  EXPECT_EQ(Run({"wait", "fashion"}), 130);
  user.join();
}

TEST_F(CliTest, Watch_UnknownTask_Is4) {
  EXPECT_EQ(Run({"watch", "gone", "-o", "json"}), 4);
  EXPECT_EQ(Json::parse(out_.str())["error"]["code"], "NOT_FOUND");
}

TEST_F(CliTest, Stop_WrongEtag_Is5) {
  AddTask("fashion");
  EXPECT_EQ(Run({"stop", "fashion", "--etag", "e0"}), 5);
  EXPECT_EQ(Run({"stop", "fashion", "--etag", "e1"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("task fashion is STOPPED"));
  EXPECT_EQ(Run({"stop", "gone"}), 4);
}

TEST_F(CliTest, Clone_Set_ChangesTheTaskFile) {
  AddTask("fashion").set_initial_digest(std::string(32, 'i'));
  ASSERT_EQ(Run({"clone", "fashion", "copy", "--set", "strategy.num_rounds=9",
                 "--set", "seed=4"}),
            0)
      << err_.str();
  ASSERT_THAT(admin_.created, SizeIs(1));
  const auto spec = plan::ParseTaskFile(admin_.created[0].task_file());
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec->name, "copy");
  EXPECT_EQ(spec->strategy.num_rounds, 9);
  EXPECT_EQ(spec->seed, 4u);
  EXPECT_EQ(admin_.created[0].program_digest(),
            admin_.tasks["fashion"].program_digest());
  EXPECT_EQ(admin_.created[0].initial_digest(), std::string(32, 'i'));
  EXPECT_EQ(Run({"clone", "fashion", "copy", "--set", "seed"}), 2);
}

TEST_F(CliTest, List_Pages_AreJoined) {
  for (const char* name : {"a", "b", "c", "d", "e"}) AddTask(name);
  ASSERT_EQ(Run({"list", "-o", "json"}), 0);
  EXPECT_THAT(Data(), SizeIs(5));
  ASSERT_EQ(Run({"list"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("NAME  POPULATION  STATE"));
  ASSERT_EQ(Run({"list", "populations", "-o", "json"}), 0);
  EXPECT_THAT(Data(), SizeIs(5));
}

TEST_F(CliTest, List_Kinds) {
  AddVersion();
  ASSERT_EQ(Run({"list", "rounds", "fashion"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("ABANDONED"));
  ASSERT_EQ(Run({"list", "models", "fashion"}), 0);
  ASSERT_EQ(Run({"model", "list", "fashion"}), 0);
  ASSERT_EQ(Run({"list", "tokens", "-o", "json"}), 0);
  EXPECT_THAT(Data(), SizeIs(5));  // one of each population
  ASSERT_EQ(Run({"token", "list", "--population", "a", "-o", "json"}), 0);
  EXPECT_THAT(Data(), SizeIs(1));
  EXPECT_EQ(Run({"list", "rounds"}), 2);
  EXPECT_EQ(Run({"list", "task"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("did you mean tasks?"));
}

TEST_F(CliTest, Show_Kinds) {
  AddTask("fashion");
  AddVersion();
  ASSERT_EQ(Run({"show", "fashion"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("  population: demo\n"));
  ASSERT_EQ(Run({"get", "task", "fashion", "-o", "json"}), 0);
  EXPECT_EQ(Data()["etag"], "e1");
  ASSERT_EQ(Run({"describe", "round", "fashion", "2"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("ABANDONED"));
  ASSERT_EQ(Run({"show", "model", "fashion"}), 0);
  ASSERT_EQ(Run({"model", "show", "fashion", "3", "-o", "json"}), 0);
  EXPECT_EQ(Data()["version"], 3);
  EXPECT_EQ(Run({"model", "show", "fashion", "9"}), 4);
  ASSERT_EQ(Run({"show", "population", "demo"}), 0);
  ASSERT_EQ(Run({"show", "server", "-o", "json"}), 0);
  EXPECT_EQ(Data()["schema_version"], 1);
  EXPECT_EQ(Run({"show", "gone"}), 4);
  EXPECT_EQ(Run({"show", "round", "fashion"}), 2);
  EXPECT_EQ(Run({"show", "round", "fashion", "x"}), 2);
  EXPECT_EQ(Run({"show", "fashion", "7"}), 2);
  EXPECT_EQ(Run({"show", "task", "fashion", "7"}), 2);
}

TEST_F(CliTest, Pull_Version_WritesVerifiedFiles) {
  AddVersion();
  ASSERT_EQ(Run({"pull", "fashion", "--out", directory_ / "m", "-o", "json"}),
            0)
      << err_.str();
  EXPECT_THAT(err_.str(), HasSubstr("no model.pt"));
  EXPECT_FALSE(Data()["files"].contains("torchscript"));
  const std::string values = Read(directory_ / "m" / "model.safetensors");
  EXPECT_EQ(crypto::Sha256(AsBytes(values)).ToHex(),
            Data()["safetensors_digest"].get<std::string>());
  EXPECT_TRUE(plan::ParseProgram(Read(directory_ / "m" / "program.json")).ok());
  EXPECT_EQ(Read(directory_ / "m" / "plan.json"), R"({"a": "plan"})");
  std::istringstream lines(Read(directory_ / "m" / "rounds.jsonl"));
  int count = 0;
  for (std::string line; std::getline(lines, line);) {
    EXPECT_EQ(Json::parse(line)["round"], ++count);
  }
  EXPECT_EQ(count, 3);
}

TEST_F(CliTest, Pull_Best_IsTheBestVersion) {
  AddVersion();
  v1::ModelVersion later = admin_.versions["fashion"][0];
  later.set_version(4);
  admin_.versions["fashion"].push_back(later);
  const auto pull = [&](const std::string& which) {
    return Run({"pull", "fashion", which, "--out", directory_ / "m", "-o",
                "json", "--torchscript", "never"});
  };
  EXPECT_EQ(pull("--best"), 6);
  EXPECT_THAT(err_.str(), HasSubstr("none was measured yet"));
  admin_.best_version = 3;
  ASSERT_EQ(pull("--best"), 0) << err_.str();
  EXPECT_EQ(Data()["version"], 3);
  ASSERT_EQ(pull("--last"), 0) << err_.str();
  EXPECT_EQ(Data()["version"], 4);
  EXPECT_EQ(Run({"pull", "fashion", "--best", "--version", "3"}), 2);
  EXPECT_EQ(Run({"pull", "fashion", "--best", "--last"}), 2);
}

TEST_F(CliTest, Show_Task_TellsBestAndEnd) {
  v1::Task& task = AddTask("fashion");
  task.set_key_metric("accuracy");
  task.set_latest_version(30);
  ASSERT_EQ(Run({"show", "fashion"}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("Best version    -\n"));
  task.set_best_version(26);
  task.set_best_value(0.875);
  task.set_stale_versions(4);
  task.set_evaluated_rounds(6);
  task.set_end_reason("patience is over");
  ASSERT_EQ(Run({"show", "fashion"}), 0) << err_.str();
  EXPECT_THAT(out_.str(),
              AllOf(HasSubstr("Latest version  30\n"),
                    HasSubstr("26 (accuracy 0.875, 4 measured since)"),
                    HasSubstr("6 rounds"), HasSubstr("patience is over")));
  ASSERT_EQ(Run({"show", "fashion", "-o", "json"}), 0);
  EXPECT_EQ(Data()["best_version"], 26);
  EXPECT_EQ(Data()["best_value"], 0.875);
  EXPECT_EQ(Data()["end_reason"], "patience is over");
}

TEST_F(CliTest, Show_EvaluationRound_TellsClasses) {
  v1::Round round = MakeRound(1, v1::Round::COMMITTED);
  round.set_mode(v1::Assignment::EVALUATE);
  v1::ClassMetrics& one = *round.add_classes();
  one.set_device_class("phone-mid");
  v1::MetricSummary& metric = *one.add_metrics();
  metric.set_name("accuracy");
  metric.set_mean(0.5);
  metric.set_device_count(7);
  admin_.rounds["fashion"] = {round};
  ASSERT_EQ(Run({"show", "round", "fashion", "1"}), 0) << err_.str();
  EXPECT_THAT(out_.str(), AllOf(HasSubstr("EVALUATE"), HasSubstr("phone-mid"),
                                HasSubstr("accuracy 0.5 (7 devices)")));
  ASSERT_EQ(Run({"show", "round", "fashion", "1", "-o", "json"}), 0);
  EXPECT_EQ(Data()["mode"], "EVALUATE");
  EXPECT_TRUE(Data()["result_version"].is_null());
  EXPECT_EQ(Data()["classes"]["phone-mid"]["accuracy"]["devices"], 7);
}

// A tool that answers as selvage-torch does.
constexpr char kFakeTorch[] =
    "#!/bin/sh\nprintf '%s\\n' \"$@\" >> \"${0%/*}/arguments\"\n"
    "echo '{\"schema_version\": 1, \"status\": \"ok\", \"data\": "
    "{\"examples\": 9, \"data_digest\": "
    "\"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\", "
    "\"metrics\": {\"loss\": 0.25}}}'\n";

TEST_F(CliTest, Evaluate_Version_IsScoredElsewhereAndAttached) {
  AddVersion();
  EXPECT_EQ(Run({"evaluate", "fashion", "--data", "x.idx"}), 6);
  EXPECT_THAT(err_.str(), HasSubstr("SELVAGE_TORCH"));
  const std::string tool = Write("bin/selvage-torch", kFakeTorch);
  std::filesystem::permissions(tool, std::filesystem::perms::owner_all);

  ASSERT_EQ(Run({"evaluate", "fashion", "--data", "x.idx", "--data", "y.idx",
                 "--dry-run"}),
            0)
      << err_.str();
  EXPECT_THAT(admin_.evaluations, IsEmpty());
  EXPECT_THAT(out_.str(), HasSubstr("loss 0.25 (9 examples of default)"));
  EXPECT_THAT(Read(directory_ / "bin" / "arguments"),
              AllOf(HasSubstr("evaluate\n-o\njson\n--program\n"),
                    HasSubstr("--data\nx.idx\n--data\ny.idx\n")));

  ASSERT_EQ(Run({"evaluate", "fashion", "--data", "x.idx", "--data-set", "t10k",
                 "-o", "json"}),
            0)
      << err_.str();
  EXPECT_EQ(Data()["metrics"]["loss"], 0.25);
  ASSERT_THAT(admin_.evaluations, SizeIs(1));
  const v1::Evaluation& sent = admin_.evaluations[0];
  EXPECT_EQ(sent.version(), 3u);
  EXPECT_EQ(sent.data_set(), "t10k");
  EXPECT_EQ(sent.example_count(), 9u);
  EXPECT_EQ(sent.model_digest(),
            admin_.versions["fashion"][0].safetensors_digest());
  ASSERT_EQ(Run({"show", "model", "fashion", "3"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("loss 0.25 (9 examples of t10k)"));
}

TEST_F(CliTest, Evaluate_Watch_ScoresWhatIsMissing_UntilTheEnd) {
  AddVersion();
  v1::ModelVersion later = admin_.versions["fashion"][0];
  later.set_version(4);
  admin_.versions["fashion"][0].add_evaluations()->set_data_set("default");
  admin_.versions["fashion"].push_back(later);
  AddSnapshots(v1::Task::FINISHED);
  const std::string tool = Write("bin/selvage-torch", kFakeTorch);
  std::filesystem::permissions(tool, std::filesystem::perms::owner_all);

  ASSERT_EQ(Run({"evaluate", "fashion", "--data", "x.idx", "--watch"}), 0)
      << err_.str();

  ASSERT_THAT(admin_.evaluations, SizeIs(1));
  EXPECT_EQ(admin_.evaluations[0].version(), 4u);
  EXPECT_EQ(
      Run({"evaluate", "fashion", "--data", "x.idx", "--watch", "--dry-run"}),
      2);
}

TEST_F(CliTest, Evaluate_ToolAnswersNonsense_IsAnError) {
  AddVersion();
  const std::string tool =
      Write("bin/selvage-torch", "#!/bin/sh\necho '{\"data\": 3}'\n");
  std::filesystem::permissions(tool, std::filesystem::perms::owner_all);
  EXPECT_EQ(Run({"evaluate", "fashion", "--data", "x.idx"}), 1);
  EXPECT_THAT(err_.str(), HasSubstr("its answer is not understood"));
  EXPECT_THAT(admin_.evaluations, IsEmpty());
}

TEST_F(CliTest, Pull_BrokenDownload_Resumes) {
  AddVersion();
  admin_.download_break_at = 1500;
  ASSERT_EQ(Run({"pull", "fashion", "--out", directory_ / "m"}), 0)
      << err_.str();
}

TEST_F(CliTest, Pull_WrongBytes_LeavesNoFile) {
  AddVersion();
  admin_.artefacts[admin_.versions["fashion"][0].safetensors_digest()] += "x";
  EXPECT_EQ(Run({"pull", "fashion", "--out", directory_ / "m"}), 1);
  EXPECT_THAT(err_.str(), HasSubstr("model.safetensors"));
  EXPECT_TRUE(std::filesystem::is_empty(directory_ / "m"));
}

TEST_F(CliTest, Pull_TorchScript_AlwaysNeedsTheTool) {
  AddVersion();
  EXPECT_EQ(Run({"pull", "fashion", "--out", directory_ / "m", "--torchscript",
                 "always"}),
            6);
  EXPECT_THAT(err_.str(), HasSubstr("SELVAGE_TORCH"));
  EXPECT_EQ(Run({"pull", "fashion", "--out", directory_ / "m", "--torchscript",
                 "never"}),
            0);
  EXPECT_EQ(err_.str(), "");
}

TEST_F(CliTest, Pull_TorchScript_RunsTheToolBesideUs) {
  AddVersion();
  const std::string tool =
      Write("bin/selvage-torch",
            "#!/bin/sh\nprintf '%s\\n' \"$@\" > \"${0%/*}/arguments\"\n");
  std::filesystem::permissions(tool, std::filesystem::perms::owner_all);
  ASSERT_EQ(Run({"pull", "fashion", "--out", directory_ / "m", "-o", "json"}),
            0)
      << err_.str();
  EXPECT_EQ(Data()["files"]["torchscript"],
            (directory_ / "m" / "model.pt").string());
  EXPECT_THAT(Read(directory_ / "bin" / "arguments"), HasSubstr("export\n"));

  Write("bin/selvage-torch",
        "#!/bin/sh\necho 'selvage-torch: error: no way' >&2; exit 1\n");
  EXPECT_EQ(Run({"pull", "fashion", "--out", directory_ / "m"}), 1);
  EXPECT_THAT(err_.str(), HasSubstr("selvage-torch export: no way"));
}

TEST_F(CliTest, Token_Create_PrintsTheBundleAlone) {
  ASSERT_EQ(Run({"token", "create", "--population", "demo", "--uses", "30",
                 "--ttl", "2h"}),
            0);
  EXPECT_EQ(Json::parse(out_.str())["token_secret"], "hush");
  EXPECT_THAT(err_.str(), Not(HasSubstr("hush")));
  ASSERT_THAT(admin_.tokens_created, SizeIs(1));
  EXPECT_EQ(admin_.tokens_created[0].uses_max(), 30u);
  EXPECT_EQ(admin_.tokens_created[0].ttl_seconds(), 7200u);
  EXPECT_EQ(Run({"token", "create"}), 2);
  EXPECT_EQ(Run({"token", "create", "--population", "demo", "--ttl", "0s"}), 2);
}

TEST_F(CliTest, Token_CreateToFile_IsForTheOwnerAlone) {
  const std::filesystem::path file = directory_ / "bundle.json";
  ASSERT_EQ(Run({"token", "create", "--population", "demo", "--out", file}), 0);
  EXPECT_EQ(Json::parse(Read(file))["token_id"], "t1");
  EXPECT_EQ(
      std::filesystem::status(file).permissions(),
      std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  EXPECT_THAT(out_.str(), Not(HasSubstr("hush")));
}

TEST_F(CliTest, Token_Revoke_AsksOrIsTold) {
  EXPECT_EQ(Run({"token", "revoke", "t1"}), 6);
  EXPECT_THAT(err_.str(), HasSubstr("pass --yes"));
  EXPECT_EQ(Run({"token", "revoke", "t1", "--yes"}), 0);
  EXPECT_THAT(admin_.revoked, SizeIs(1));
  in_is_terminal_ = true;
  in_.str("n\n");
  EXPECT_EQ(Run({"token", "revoke", "t1"}), 130);
  in_.str("y\n");
  EXPECT_EQ(Run({"token", "revoke", "t1"}), 0);
  EXPECT_EQ(Run({"token", "revoke", "t1", "--no-input"}), 6);
  EXPECT_THAT(admin_.revoked, SizeIs(2));
}

TEST_F(CliTest, Population_Create) {
  ASSERT_EQ(Run({"population", "create", "demo", "--request-id", "r"}), 0);
  EXPECT_EQ(admin_.request_ids.at(0), "r");
  EXPECT_EQ(Run({"population", "create", "taken"}), 5);
  ASSERT_EQ(Run({"population", "list"}), 0);
}

TEST_F(CliTest, Connection_WrongToken_Is3) {
  Write("coordinator/admin.token", "guess");
  EXPECT_EQ(Run({"list"}), 3);
  EXPECT_THAT(err_.str(),
              AllOf(HasSubstr("refused the token"), HasSubstr("--token-file")));
  EXPECT_THAT(err_.str(), Not(HasSubstr("guess")));
}

TEST_F(CliTest, Connection_NobodyThere_Is8) {
  Write("coordinator/endpoints.json", R"({"admin":"127.0.0.1:1"})");
  EXPECT_EQ(Run({"list"}), 8);
  EXPECT_THAT(err_.str(),
              AllOf(HasSubstr("127.0.0.1:1"), HasSubstr("selvage doctor")));
}

TEST_F(CliTest, Connection_ForeignCa_Is8) {
  test::FakeAdmin other(directory_ / "other");
  Write("coordinator/ca.pem", Read(directory_ / "other" / "ca.pem"));
  EXPECT_EQ(Run({"list"}), 8);
}

TEST_F(CliTest, Config_Output_IsTheDefault) {
  Write("home/.config/selvage/config.yaml", "output: json\n");
  ASSERT_EQ(Run({"version"}), 0);
  EXPECT_TRUE(Data().contains("commit"));
  ASSERT_EQ(Run({"version", "-o", "table"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("selvage "));
  EXPECT_EQ(Run({"version", "-o", "xml"}), 2);
}

TEST_F(CliTest, Usage_Mistakes_AreHelpful) {
  EXPECT_EQ(Run({}), 2);
  EXPECT_EQ(Run({"lst", "-o", "json"}), 2);
  EXPECT_EQ(Json::parse(out_.str())["error"]["hint"],
            "did you mean `selvage list`?");
  EXPECT_EQ(Run({"watch"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("`selvage watch --help`"));
  EXPECT_EQ(Run({"watch", "a", "b"}), 2);
  EXPECT_EQ(Run({"run", "--watch", "--wait", "x"}), 2);
}

}  // namespace
}  // namespace selvage::cli

#include "cli/torch/torch_cli.h"

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/version.h"
#include "cli/package_options.h"
#include "cli/torch/data_set.h"
#include "cli/torch/model_file.h"
#include "client/training/torch/lenet5.h"
#include "client/training/torch/torch_trainer.h"
#include "plan/checkpoint.h"
#include "plan/program.h"

namespace selvage::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kSafetensorsSizeMax = uint64_t{16} << 30;

// What a verb has to say: for programs and for people.
struct Answer {
  Json data;
  std::string text;
};
using Verb = std::function<Result<Answer>(FileSystem&)>;

client::TorchTrainer MakeTrainer() {
  return client::TorchTrainer(
      {.native = {{"lenet5", client::LeNet5Factory()}}});
}

// As a device would load it.
Status CheckLoads(const ModelFile& model) {
  client::TorchTrainer trainer = MakeTrainer();
  auto loaded = trainer.Load(model.program, model.archive);
  if (!loaded.ok()) return loaded.status();
  if (!model.values.has_value()) return OkStatus();
  return (*loaded)->SetValues(*model.values);
}

Json Describe(const plan::Program& program) {
  Json values = Json::object();
  for (const auto& entry : program.table.entries()) {
    const std::string role(plan::RoleName(entry.spec.role));
    values[role] = values.value(role, size_t{0}) + entry.count;
  }
  return {{"kind", plan::ProgramKindName(program.kind)},
          {"program_digest",
           crypto::Sha256(AsBytes(plan::CanonicalJson(program))).ToHex()},
          {"tensors", program.table.entries().size()},
          {"values_by_role", values},
          {"metrics", program.metrics}};
}

std::string DescribeText(const plan::Program& program) {
  const Json data = Describe(program);
  std::string out = "program  " + data["program_digest"].get<std::string>() +
                    "\nkind     " + data["kind"].get<std::string>() +
                    "\ntensors  " + data["tensors"].dump() + "; values:";
  for (const auto& [role, count] : data["values_by_role"].items()) {
    out += " " + count.dump() + " " + role;
  }
  return out + "\n";
}

// ---- package ----

struct TorchPackageOptions : PackageOptions {
  uint64_t seed = 0;
};

Result<Answer> Package(FileSystem& files, const TorchPackageOptions& options) {
  std::vector<RoleOption> roles;
  for (const std::string& text : options.roles) {
    SELVAGE_ASSIGN_OR_RETURN(RoleOption role, ParseRoleOption(text));
    roles.push_back(std::move(role));
  }
  SELVAGE_ASSIGN_OR_RETURN(
      const ModelFile model,
      ReadModelFile(files, options.model, std::nullopt, roles));
  const plan::Program& program = model.program;
  if (const Status status = CheckLoads(model); !status.ok()) {
    return status.WithContext(options.model);
  }
  const plan::Checkpoint values =
      model.values.has_value()
          ? *model.values
          : plan::InitializeCheckpoint(program.table, options.seed);

  const Path directory = options.out;
  SELVAGE_RETURN_IF_ERROR(files.CreateDirectories(directory));
  Answer answer{.data = Describe(program), .text = DescribeText(program)};
  const auto write = [&](const std::string& key, const std::string& name,
                         ByteSpan bytes) {
    const Path path = directory / name;
    answer.data[key] = path.string();
    answer.text += "wrote    " + path.string() + "\n";
    return WriteFileDurably(files, path, bytes, 0644);
  };
  SELVAGE_RETURN_IF_ERROR(
      write("program", "program.json", AsBytes(plan::CanonicalJson(program))));
  SELVAGE_RETURN_IF_ERROR(
      write("model", "model.safetensors",
            plan::WriteSafetensors(program.table, values, {})));
  if (program.kind == plan::ProgramKind::kArchive) {
    SELVAGE_RETURN_IF_ERROR(write("archive", "archive.pt", model.archive));
  }
  return answer;
}

void AddPackage(CLI::App& app, Verb& chosen) {
  const auto options = std::make_shared<TorchPackageOptions>();
  auto* verb = AddPackageVerb(app, *options);
  verb->add_option("--seed", options->seed,
                   "of the initial values; an archive brings its own")
      ->type_name("N")
      ->capture_default_str();
  verb->footer(R"(
Loads the program as a device would, then writes program.json,
model.safetensors and, for an archive, archive.pt.

Examples:
  selvage-torch package model.yaml --out package/
  selvage-torch package model.pt --out package/ --role '^head\.=personal')");
  verb->callback([options, &chosen] {
    chosen = [options](FileSystem& files) { return Package(files, *options); };
  });
}

// ---- what export and evaluate read ----

// A model as `selvage pull` writes it.
struct ModelOptions {
  std::string program;
  std::string model;
  std::optional<std::string> archive;
};

struct ModelWithValues {
  ModelFile model;
  plan::Checkpoint values;
};

Result<ModelWithValues> ReadModel(FileSystem& files,
                                  const ModelOptions& options) {
  ModelWithValues out;
  SELVAGE_ASSIGN_OR_RETURN(
      out.model, ReadModelFile(files, options.program,
                               options.archive.has_value()
                                   ? std::optional<Path>(*options.archive)
                                   : std::nullopt,
                               {}));
  SELVAGE_ASSIGN_OR_RETURN(const Bytes safetensors,
                           ReadFile(files, options.model, kSafetensorsSizeMax));
  auto values = plan::ReadSafetensors(out.model.program.table, safetensors);
  if (!values.ok()) return values.status().WithContext(options.model);
  out.values = *std::move(values);
  return out;
}

void AddModelOptions(CLI::App& verb, ModelOptions& options) {
  verb.add_option("--program", options.program, "program.json or model.yaml")
      ->type_name("FILE")
      ->required();
  verb.add_option("--model", options.model, "the values, as safetensors")
      ->type_name("FILE")
      ->required();
  verb.add_option("--archive", options.archive,
                  "the archive, if the program is one")
      ->type_name("FILE");
}

// ---- export ----

struct ExportOptions {
  ModelOptions model;
  std::string out;
};

Result<Answer> Export(FileSystem& files, const ExportOptions& options) {
  SELVAGE_ASSIGN_OR_RETURN(const ModelWithValues read,
                           ReadModel(files, options.model));
  const ModelFile& model = read.model;
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes exported,
      client::ExportTorchScript(model.program, read.values, model.archive));
  SELVAGE_RETURN_IF_ERROR(WriteFileDurably(files, options.out, exported, 0644));
  return Answer{.data = {{"model", options.out}, {"bytes", exported.size()}},
                .text = "wrote    " + options.out + "\n"};
}

void AddExport(CLI::App& app, Verb& chosen) {
  auto* verb = app.add_subcommand(
      "export", "write a model as a file that torch.jit.load opens");
  const auto options = std::make_shared<ExportOptions>();
  AddModelOptions(*verb, options->model);
  verb->add_option("--out", options->out, "the file to write")
      ->type_name("FILE")
      ->required();
  verb->footer(R"(
Examples:
  selvage-torch export --program program.json --model model.safetensors \
      --out model.pt)");
  verb->callback([options, &chosen] {
    chosen = [options](FileSystem& files) { return Export(files, *options); };
  });
}

// ---- evaluate ----

struct EvaluateOptions {
  ModelOptions model;
  std::vector<std::string> data;
};

Result<Answer> Evaluate(FileSystem& files, const EvaluateOptions& options) {
  SELVAGE_ASSIGN_OR_RETURN(const ModelWithValues read,
                           ReadModel(files, options.model));
  const ModelFile& model = read.model;
  SELVAGE_ASSIGN_OR_RETURN(
      const DataSet data,
      ReadDataSet(files, {options.data.begin(), options.data.end()},
                  model.program));
  client::TorchTrainer trainer = MakeTrainer();
  SELVAGE_ASSIGN_OR_RETURN(const std::unique_ptr<client::TrainableModel> loaded,
                           trainer.Load(model.program, model.archive));
  SELVAGE_RETURN_IF_ERROR(loaded->SetValues(read.values));
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<float> scores,
                           loaded->Score(data.examples));
  const std::vector<std::string>& names = model.program.metrics;
  const size_t count = data.examples.count;
  Json metrics = Json::object();
  std::string text = "examples  " + std::to_string(count) + "\n";
  for (size_t m = 0; m < names.size(); ++m) {
    double sum = 0;
    for (size_t i = 0; i < count; ++i) {
      sum += static_cast<double>(scores[i * names.size() + m]);
    }
    metrics[names[m]] = sum / static_cast<double>(count);
    text += names[m] + "  " + metrics[names[m]].dump() + "\n";
  }
  return Answer{.data = {{"examples", count},
                         {"data_digest", data.digest.ToHex()},
                         {"metrics", metrics}},
                .text = text};
}

void AddEvaluate(CLI::App& app, Verb& chosen) {
  auto* verb = app.add_subcommand(
      "evaluate", "score a model on a data set with the program's metrics");
  const auto options = std::make_shared<EvaluateOptions>();
  AddModelOptions(*verb, options->model);
  verb->add_option("--data", options->data,
                   "one IDX file for each of the program's inputs, in their "
                   "order, or one safetensors file with the inputs' names")
      ->type_name("FILE")
      ->required()
      ->expected(1)
      ->take_all();
  verb->footer(R"(
`selvage evaluate` calls it and attaches the scores to the version.

Examples:
  selvage-torch evaluate --program program.json --model model.safetensors \
      --data t10k-images-idx3-ubyte --data t10k-labels-idx1-ubyte)");
  verb->callback([options, &chosen] {
    chosen = [options](FileSystem& files) { return Evaluate(files, *options); };
  });
}

// ---- check ----

struct CheckOptions {
  std::string model;
  std::optional<std::string> archive;
};

Result<Answer> Check(FileSystem& files, const CheckOptions& options) {
  SELVAGE_ASSIGN_OR_RETURN(
      const ModelFile model,
      ReadModelFile(files, options.model,
                    options.archive.has_value()
                        ? std::optional<Path>(*options.archive)
                        : std::nullopt,
                    {}));
  if (const Status status = CheckLoads(model); !status.ok()) {
    return status.WithContext(options.model);
  }
  Answer answer{.data = Describe(model.program),
                .text = DescribeText(model.program)};
  if (model.program.kind != plan::ProgramKind::kNative) {
    SELVAGE_ASSIGN_OR_RETURN(
        const std::vector<std::string> names,
        client::ListOperators(model.program, model.archive));
    answer.data["operators"] = names;
    answer.text += "operators, all permitted:\n";
    for (const std::string& name : names) answer.text += "  " + name + "\n";
  }
  return answer;
}

void AddCheck(CLI::App& app, Verb& chosen) {
  auto* verb = app.add_subcommand(
      "check", "would a device run this program? which operators does it use?");
  const auto options = std::make_shared<CheckOptions>();
  verb->add_option("model", options->model,
                   "model.yaml, model.pt or program.json")
      ->type_name("FILE")
      ->required();
  verb->add_option("--archive", options->archive,
                   "the archive of a program.json")
      ->type_name("FILE");
  verb->footer(R"(
Exit code 6 if an operator is not permitted, 2 if the program is wrong.

Examples:
  selvage-torch check model.yaml)");
  verb->callback([options, &chosen] {
    chosen = [options](FileSystem& files) { return Check(files, *options); };
  });
}

// ---- info ----

Result<Answer> Info() {
  // The trainer first: it decides the number of threads.
  const client::TorchTrainer trainer = MakeTrainer();
  const client::TorchEngineInfo info = client::DescribeTorchEngine();
  return Answer{
      .data = {{"libtorch", info.version},
               {"blas_library", info.blas_library},
               {"openblas", info.openblas},
               {"threads", info.threads},
               {"engines", trainer.engines()},
               {"build", info.build}},
      .text = "LibTorch  " + info.version + "\nBLAS      " +
              (info.blas_library.empty() ? "unknown" : info.blas_library) +
              (info.openblas
                   ? ""
                   : "\n          training is up to 30 times slower without "
                     "an optimised one") +
              "\nthreads   " + std::to_string(info.threads) + "\n"};
}

void AddInfo(CLI::App& app, Verb& chosen) {
  auto* verb = app.add_subcommand("info", "the engine and the BLAS it uses");
  verb->footer(R"(
Examples:
  selvage-torch info -o json)");
  verb->callback([&chosen] { chosen = [](FileSystem&) { return Info(); }; });
}

// ---- all of it ----

Json Envelope(std::string_view status) {
  return Json{{"schema_version", 1}, {"status", status}};
}

std::string Dump(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

ExitCode CodeOf(const Status& status) {
  // Nobody's credentials are wrong: the program did not pass the gate.
  if (status.code() == StatusCode::kPermissionDenied) {
    return ExitCode::kPrecondition;
  }
  return ExitCodeOf(status.code());
}

ExitCode Fail(const Status& status, bool json, std::ostream& out,
              std::ostream& err) {
  err << "selvage-torch: error: " << status.message() << '\n';
  if (json) {
    Json envelope = Envelope("error");
    envelope["error"] = {{"code", StatusCodeName(status.code())},
                         {"message", status.message()}};
    out << Dump(envelope);
  }
  return CodeOf(status);
}

}  // namespace

ExitCode RunTorchCli(const std::vector<std::string>& arguments,
                     FileSystem& files, std::ostream& out, std::ostream& err) {
  CLI::App app(
      "Packages, checks, scores and exports models. The one Selvage tool that "
      "links LibTorch.",
      "selvage-torch");
  app.set_version_flag("--version", "selvage-torch " + std::string(Version()) +
                                        " (" + std::string(Commit()) + ")");
  std::string format = "table";
  app.add_option("-o,--output", format, "table or json")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  app.fallthrough();
  app.require_subcommand(1);
  Verb chosen;
  AddPackage(app, chosen);
  AddExport(app, chosen);
  AddEvaluate(app, chosen);
  AddCheck(app, chosen);
  AddInfo(app, chosen);
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& e) {
    return app.exit(e, out, err) == 0 ? ExitCode::kOk : ExitCode::kUsage;
  }
  const bool json = format == "json";
  try {
    const Result<Answer> answer = chosen(files);
    if (!answer.ok()) return Fail(answer.status(), json, out, err);
    if (json) {
      Json envelope = Envelope("ok");
      envelope["data"] = answer->data;
      out << Dump(envelope);
    } else {
      out << answer->text;
    }
  } catch (const std::exception& e) {
    return Fail(Internal(e.what()), json, out, err);
  }
  return ExitCode::kOk;
}

}  // namespace selvage::cli

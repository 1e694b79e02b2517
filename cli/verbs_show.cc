// list, show: what is there.
#include <CLI/CLI.hpp>
#include <charconv>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/render.h"
#include "cli/text.h"
#include "cli/verbs.h"

namespace selvage::cli {
namespace {

const std::vector<std::string>& ListKinds() {
  static const std::vector<std::string> kKinds = {"tasks", "rounds", "models",
                                                  "populations", "tokens"};
  return kKinds;
}
const std::vector<std::string>& ShowKinds() {
  static const std::vector<std::string> kKinds = {"task", "round", "model",
                                                  "population", "server"};
  return kKinds;
}

Status UnknownKind(const std::string& kind,
                   const std::vector<std::string>& kinds) {
  std::string all;
  for (const std::string& known : kinds) {
    all += (all.empty() ? "" : ", ") + known;
  }
  const std::string nearest = Nearest(kind, kinds);
  return InvalidArgument(
      "\"" + Printable(kind) + "\" is none of " + all +
      (nearest.empty() ? "" : "; did you mean " + nearest + "?"));
}

Result<uint64_t> ParseNumber(const std::string& what, const std::string& text) {
  uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || at != end) {
    return InvalidArgument(what + " \"" + Printable(text) +
                           "\" is not a number");
  }
  return value;
}

template <typename T>
Result<ExitCode> PrintOne(Context& context, const Result<T>& item) {
  if (!item.ok()) return item.status();
  context.output().Data(ToJson(*item), [&] { return Describe(*item); });
  return ExitCode::kOk;
}

template <typename T, typename Format>
Result<ExitCode> PrintAll(Context& context, const Result<std::vector<T>>& items,
                          Format format) {
  if (!items.ok()) return items.status();
  context.output().Data(ListToJson(*items), [&] { return format(*items); });
  return ExitCode::kOk;
}

struct ListOptions {
  std::string kind = "tasks";
  std::string task;
  std::string population;
};

Result<ExitCode> List(Context& context, const ListOptions& options) {
  const std::string& kind = options.kind;
  const bool of_task = kind == "rounds" || kind == "models";
  if (of_task && options.task.empty()) {
    return InvalidArgument("list " + kind + " needs a task: selvage list " +
                           kind + " TASK");
  }
  SELVAGE_ASSIGN_OR_RETURN(AdminClient* const admin, context.Admin());
  if (kind == "tasks") {
    return PrintAll(context, admin->ListTasks(options.population), TaskTable);
  }
  if (kind == "rounds") {
    return PrintAll(context, admin->ListRounds(options.task), RoundTable);
  }
  if (kind == "models") {
    return PrintAll(context, admin->ListModelVersions(options.task),
                    VersionTable);
  }
  if (kind == "populations") {
    return PrintAll(context, admin->ListPopulations(), PopulationTable);
  }
  const int64_t now = ToMicros(context.environment().clock.Now());
  return PrintAll(context, admin->ListTokens(options.population),
                  [now](const std::vector<v1::EnrolmentToken>& tokens) {
                    return TokenTable(tokens, now);
                  });
}

// `words`: [KIND] NAME [NUMBER].
Result<ExitCode> Show(Context& context, std::vector<std::string> words) {
  if (words.size() == 1 && words[0] != "server") {
    words.insert(words.begin(), "task");
  }
  const std::string& kind = words[0];
  const bool known = std::find(ShowKinds().begin(), ShowKinds().end(), kind) !=
                     ShowKinds().end();
  if (!known) return UnknownKind(kind, ShowKinds());
  const size_t words_max = kind == "server"                     ? 1
                           : kind == "round" || kind == "model" ? 3
                                                                : 2;
  if (words.size() > words_max) {
    return InvalidArgument("show " + kind + " takes no \"" +
                           Printable(words[words_max]) + "\"");
  }
  if (kind == "round" && words.size() < 3) {
    return InvalidArgument(
        "show round needs a task and a number: selvage "
        "show round TASK NUMBER");
  }
  std::optional<uint64_t> number;
  if (words.size() == 3) {
    SELVAGE_ASSIGN_OR_RETURN(number, ParseNumber(kind, words[2]));
  }
  SELVAGE_ASSIGN_OR_RETURN(AdminClient* const admin, context.Admin());
  if (kind == "server") return PrintOne(context, admin->GetServerInfo());
  const std::string& name = words[1];
  if (kind == "task") return PrintOne(context, admin->GetTask(name));
  if (kind == "round") return PrintOne(context, admin->GetRound(name, *number));
  if (kind == "model") {
    return PrintOne(context, admin->GetModelVersion(name, number));
  }
  return PrintOne(context, admin->GetPopulation(name));
}

}  // namespace

void AddShowVerbs(CLI::App& app, Verb& chosen) {
  {
    auto* verb = app.add_subcommand(
        "list", "list tasks, rounds, models, populations or tokens");
    const auto options = std::make_shared<ListOptions>();
    verb->add_option("kind", options->kind,
                     "tasks (default), rounds, models, populations, tokens")
        ->type_name("KIND");
    verb->add_option("task", options->task, "for rounds and models")
        ->type_name("TASK");
    verb->add_option("--population", options->population,
                     "only tasks or tokens of this one")
        ->type_name("NAME");
    verb->footer(R"(Examples:
  selvage list
  selvage list rounds fashion-personal
  selvage list models fashion-personal -o json
  selvage list tokens --population demo)");
    verb->callback([options, &chosen] {
      chosen = [options](Context& context) -> Result<ExitCode> {
        const auto& kinds = ListKinds();
        if (std::find(kinds.begin(), kinds.end(), options->kind) ==
            kinds.end()) {
          return UnknownKind(options->kind, kinds);
        }
        return List(context, *options);
      };
    });
  }
  {
    auto* verb = app.add_subcommand(
        "show", "show one task, round, model, population or the server");
    verb->alias("get");
    verb->alias("describe");
    const auto words = std::make_shared<std::vector<std::string>>();
    verb->add_option("what", *words,
                     "TASK; task TASK; round TASK NUMBER; model TASK "
                     "[VERSION]; population NAME; server")
        ->type_name("[KIND] NAME")
        ->expected(1, 3)
        ->required();
    verb->footer(R"(`get` and `describe` are the same verb.

Examples:
  selvage show fashion-personal
  selvage show round fashion-personal 7
  selvage show model fashion-personal
  selvage show server -o json)");
    verb->callback([words, &chosen] {
      chosen = [words](Context& context) { return Show(context, *words); };
    });
  }
}

}  // namespace selvage::cli

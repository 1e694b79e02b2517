#include "cli/app.h"

#include <CLI/CLI.hpp>
#include <optional>

#include "base/version.h"
#include "cli/context.h"
#include "cli/text.h"
#include "cli/verbs.h"

namespace selvage::cli {
namespace {

constexpr const char* kConnectionGroup = "Connection";

constexpr const char* kFooter = R"(Examples:
  selvage --coordinator /var/lib/selvage run task.yaml --watch
  selvage list
  selvage show fashion-personal
  selvage pull fashion-personal --out model/

`selvage VERB --help` says more about a verb. Exit codes: 0 done, 2 wrong usage,
3 not allowed, 4 not found, 5 conflict, 6 not in that state, 7 timeout,
8 unavailable, 130 interrupted, 1 anything else.)";

struct Parsed {
  GlobalOptions global;
  std::string output;
  Verb verb;
};

void AddGlobalOptions(CLI::App& app, Parsed& parsed) {
  ConnectionOptions& to = parsed.global.connection;
  app.add_option("--coordinator", to.coordinator,
                 "data directory of a coordinator on this machine "
                 "[SELVAGE_COORDINATOR]")
      ->type_name("DIR")
      ->group(kConnectionGroup);
  app.add_option("--server", to.server,
                 "admin address of a coordinator [SELVAGE_SERVER]")
      ->type_name("HOST:PORT")
      ->group(kConnectionGroup);
  app.add_option("--ca", to.ca, "its CA certificate [SELVAGE_CA]")
      ->type_name("FILE")
      ->group(kConnectionGroup);
  app.add_option("--token-file", to.token_file,
                 "a file with the admin token [SELVAGE_TOKEN_FILE]")
      ->type_name("FILE")
      ->group(kConnectionGroup);
  app.add_option("-o,--output", parsed.output, "table or json")
      ->type_name("FORMAT");
  app.add_option("--request-id", parsed.global.request_id,
                 "idempotency key: the same one again has one effect")
      ->type_name("ID");
  app.add_flag("--no-input", parsed.global.no_input, "never ask anything");
}

// -o json must hold for usage errors too, which come before options are known.
bool WantsJson(const std::vector<std::string>& arguments) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (argument == "-ojson" || argument == "-o=json" ||
        argument == "--output=json") {
      return true;
    }
    if ((argument == "-o" || argument == "--output") &&
        i + 1 < arguments.size() && arguments[i + 1] == "json") {
      return true;
    }
  }
  return false;
}

// The first word that is neither a verb nor an option's value, if there is no
// verb.
std::optional<std::string> UnknownVerb(const CLI::App& app) {
  if (!app.get_subcommands().empty()) return std::nullopt;
  for (const std::string& word : app.remaining()) {
    if (!word.empty() && word[0] != '-') return word;
  }
  return std::nullopt;
}

// The verb that was meant, or where help is.
std::string UsageHint(const CLI::App& app) {
  std::vector<std::string> verbs;
  for (const CLI::App* verb : app.get_subcommands({})) {
    verbs.push_back(verb->get_name());
  }
  if (const auto word = UnknownVerb(app)) {
    const std::string nearest = Nearest(*word, verbs);
    if (!nearest.empty()) return "did you mean `selvage " + nearest + "`?";
  }
  std::string path = "selvage";
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands().front();
    path += " " + at->get_name();
  }
  return "`" + path + " --help` shows how";
}

// What every verb's help ends with.
void AddCommonFooter(CLI::App& app) {
  for (CLI::App* verb : app.get_subcommands({})) {
    verb->footer(verb->get_footer() +
                 "\n\nWhich coordinator, -o json and other options for every "
                 "verb: `selvage --help`.");
    AddCommonFooter(*verb);
  }
}

ExitCode Run(Environment& environment, Parsed& parsed) {
  OutputFormat format = OutputFormat::kTable;
  auto config = LoadConfig(environment);
  Status problem = config.status();
  std::string wanted = parsed.output;
  if (wanted.empty() && config.ok()) wanted = config->output.value_or("");
  if (!wanted.empty()) {
    const auto chosen = ParseOutputFormat(wanted);
    if (chosen.ok()) {
      format = *chosen;
    } else if (problem.ok()) {
      problem = chosen.status();
    }
  }
  if (!problem.ok()) return Output(environment, format).Error(problem, "");

  Context context(environment, parsed.global,
                  ConnectionFromEnvironment(environment.get_env),
                  config->connection, format);
  const Result<ExitCode> code = parsed.verb(context);
  if (code.ok()) return *code;
  return context.output().Error(code.status(), HintFor(code.status()));
}

}  // namespace

ExitCode RunCli(const std::vector<std::string>& arguments,
                Environment& environment) {
  CLI::App app("Launch, follow and take home federated learning tasks.",
               "selvage");
  app.footer(kFooter);
  app.require_subcommand(1);
  app.fallthrough();
  app.set_version_flag(
      "--version",
      "selvage " + std::string(Version()) + " (" + std::string(Commit()) + ")",
      "print version and commit");
  Parsed parsed;
  AddGlobalOptions(app, parsed);
  AddRunVerbs(app, parsed.verb);
  AddTaskVerbs(app, parsed.verb);
  AddShowVerbs(app, parsed.verb);
  AddModelVerbs(app, parsed.verb);
  AddPopulationVerbs(app, parsed.verb);
  AddAdminVerbs(app, parsed.verb);
  AddDoctorVerbs(app, parsed.verb);
  AddCommonFooter(app);
  try {
    // CLI11 takes the last argument first.
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
    app.parse(reversed);
  } catch (const CLI::Success& e) {  // --help, --version
    app.exit(e, environment.out, environment.err);
    return ExitCode::kOk;
  } catch (const CLI::Error& e) {
    Output output(environment, WantsJson(arguments) ? OutputFormat::kJson
                                                    : OutputFormat::kTable);
    const auto unknown = UnknownVerb(app);
    const bool no_verb = dynamic_cast<const CLI::RequiredError*>(&e) != nullptr;
    const std::string message =
        no_verb && unknown ? "\"" + Printable(*unknown) + "\" is not a verb"
                           : e.what();
    return output.Error(InvalidArgument(message), UsageHint(app));
  }
  return Run(environment, parsed);
}

}  // namespace selvage::cli

// population, token: fleets and how devices join them.
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/render.h"
#include "cli/text.h"
#include "cli/verbs.h"

namespace selvage::cli {
namespace {

Result<ExitCode> CreatePopulation(Context& context, const std::string& name) {
  SELVAGE_ASSIGN_OR_RETURN(AdminClient* const admin, context.Admin());
  SELVAGE_ASSIGN_OR_RETURN(const v1::Population population,
                           admin->CreatePopulation(name, context.RequestId()));
  context.output().Data(ToJson(population), [&] {
    return "population " + population.name() + " created\n";
  });
  context.output().Message(
      "let devices join it with: selvage token create "
      "--population " +
      population.name() + " --out bundle.json");
  return ExitCode::kOk;
}

Result<ExitCode> ListPopulations(Context& context) {
  SELVAGE_ASSIGN_OR_RETURN(AdminClient* const admin, context.Admin());
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<v1::Population> populations,
                           admin->ListPopulations());
  context.output().Data(ListToJson(populations),
                        [&] { return PopulationTable(populations); });
  return ExitCode::kOk;
}

struct TokenOptions {
  std::string population;
  std::string ttl = "1d";
  uint32_t uses = 1;
  std::string out;
};

Result<ExitCode> CreateToken(Context& context, const TokenOptions& options) {
  SELVAGE_ASSIGN_OR_RETURN(const Duration ttl, ParseDuration(options.ttl));
  if (ttl < std::chrono::seconds(1)) {
    return InvalidArgument("--ttl " + options.ttl + " is below 1s");
  }
  SELVAGE_ASSIGN_OR_RETURN(AdminClient* const admin, context.Admin());
  v1::CreateEnrolmentTokenRequest request;
  request.set_population(options.population);
  request.set_ttl_seconds(static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(ttl).count()));
  request.set_uses_max(options.uses);
  request.set_request_id(context.RequestId());
  SELVAGE_ASSIGN_OR_RETURN(const v1::CreateEnrolmentTokenResponse answer,
                           admin->CreateToken(request));
  const auto bundle =
      nlohmann::ordered_json::parse(answer.bundle(), nullptr, false);
  if (!bundle.is_object()) {
    return DataLoss("the coordinator's bundle is not JSON");
  }
  nlohmann::ordered_json data{{"token", ToJson(answer.token())}};
  if (options.out.empty()) {
    data["bundle"] = bundle;
  } else {
    SELVAGE_RETURN_IF_ERROR(
        WriteFileDurably(context.environment().files, options.out,
                         AsBytes(answer.bundle() + "\n"), 0600));
    data["file"] = options.out;
  }
  context.output().Data(data, [&] {
    return options.out.empty() ? answer.bundle() + "\n"
                               : "token " + answer.token().id() + " is in " +
                                     options.out + "\n";
  });
  context.output().Message(
      "token " + answer.token().id() + " enrols " +
      std::to_string(answer.token().uses_max()) + " device(s) of " +
      answer.token().population() + " until " +
      FormatMicros(answer.token().expires_micros()) +
      (options.out.empty() ? "; it is shown this once: keep it secret"
                           : "; there is no other copy: keep it secret"));
  return ExitCode::kOk;
}

Result<ExitCode> ListTokens(Context& context, const std::string& population) {
  SELVAGE_ASSIGN_OR_RETURN(AdminClient* const admin, context.Admin());
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<v1::EnrolmentToken> tokens,
                           admin->ListTokens(population));
  const int64_t now = ToMicros(context.environment().clock.Now());
  context.output().Data(ListToJson(tokens),
                        [&] { return TokenTable(tokens, now); });
  return ExitCode::kOk;
}

Result<ExitCode> RevokeToken(Context& context, const std::string& id,
                             bool yes) {
  SELVAGE_ASSIGN_OR_RETURN(AdminClient* const admin, context.Admin());
  if (!yes) {
    SELVAGE_RETURN_IF_ERROR(context.Confirm(
        "Revoke token " + Printable(id) +
        "? Devices that did not enrol yet cannot use it any more."));
  }
  SELVAGE_ASSIGN_OR_RETURN(const v1::EnrolmentToken token,
                           admin->RevokeToken(id));
  context.output().Data(ToJson(token), [&] {
    return "token " + token.id() + " revoked; it enrolled " +
           std::to_string(token.uses()) + " device(s), which stay enrolled\n";
  });
  return ExitCode::kOk;
}

void AddTokenVerbs(CLI::App& app, Verb& chosen) {
  auto* token = app.add_subcommand("token", "enrolment tokens for devices");
  token->require_subcommand(1);
  token->footer(R"(Examples:
  selvage token create --population demo --uses 30 --out bundle.json
  selvage token list
  selvage token revoke TOKEN_ID)");

  auto* create = token->add_subcommand("create", "make a token");
  const auto options = std::make_shared<TokenOptions>();
  create->add_option("--population", options->population, "whom it lets in")
      ->type_name("NAME")
      ->required();
  create->add_option("--ttl", options->ttl, "how long it works; at most 30d")
      ->type_name("TIME")
      ->capture_default_str();
  create->add_option("--uses", options->uses, "how many devices it may enrol")
      ->type_name("COUNT")
      ->capture_default_str()
      ->check(CLI::Range(1, 100'000));
  create
      ->add_option("--out", options->out,
                   "write the bundle here, readable by you alone, instead "
                   "of to standard output")
      ->type_name("FILE");
  create->footer(
      R"(Prints the bundle to hand to devices: the endpoint, the CA certificate and the
secret, which is shown this once.

Examples:
  selvage token create --population demo --uses 30 --out bundle.json
  selvage token create --population demo --ttl 2h | ssh gateway 'cat > bundle.json')");
  create->callback([options, &chosen] {
    chosen = [options](Context& context) {
      return CreateToken(context, *options);
    };
  });

  auto* list = token->add_subcommand("list", "list tokens, without secrets");
  const auto population = std::make_shared<std::string>();
  list->add_option("--population", *population, "only those of this one")
      ->type_name("NAME");
  list->footer(R"(Examples:
  selvage token list --population demo)");
  list->callback([population, &chosen] {
    chosen = [population](Context& context) {
      return ListTokens(context, *population);
    };
  });

  auto* revoke = token->add_subcommand("revoke", "make a token useless");
  struct RevokeOptions {
    std::string id;
    bool yes = false;
  };
  const auto revoked = std::make_shared<RevokeOptions>();
  revoke->add_option("id", revoked->id, "the token's id")
      ->type_name("TOKEN_ID")
      ->required();
  revoke->add_flag("--yes", revoked->yes, "do not ask");
  revoke->footer(R"(Devices that enrolled with it stay enrolled.

Examples:
  selvage token revoke 5f1c0a9e --yes)");
  revoke->callback([revoked, &chosen] {
    chosen = [revoked](Context& context) {
      return RevokeToken(context, revoked->id, revoked->yes);
    };
  });
}

}  // namespace

void AddPopulationVerbs(CLI::App& app, Verb& chosen) {
  auto* population = app.add_subcommand("population", "fleets of devices");
  population->require_subcommand(1);
  population->footer(R"(Examples:
  selvage population create demo
  selvage population list)");
  auto* create = population->add_subcommand("create", "make a population");
  const auto name = std::make_shared<std::string>();
  create->add_option("name", *name, "letters a-z, digits and -")
      ->type_name("NAME")
      ->required();
  create->footer(R"(Examples:
  selvage population create demo)");
  create->callback([name, &chosen] {
    chosen = [name](Context& context) {
      return CreatePopulation(context, *name);
    };
  });
  auto* list = population->add_subcommand("list", "list populations");
  list->footer(R"(Examples:
  selvage population list -o json)");
  list->callback([&chosen] { chosen = ListPopulations; });
  AddTokenVerbs(app, chosen);
}

}  // namespace selvage::cli

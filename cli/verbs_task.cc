// watch, wait, stop: what follows and ends tasks.
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/render.h"
#include "cli/text.h"
#include "cli/verbs.h"
#include "cli/watch_view.h"

namespace selvage::cli {
namespace {

bool Ended(const v1::Round& round) {
  return round.state() == v1::Round::COMMITTED ||
         round.state() == v1::Round::ABANDONED;
}

// Prints a line for every round that ended, also those between two snapshots.
class RoundLines {
 public:
  RoundLines(Context& context, AdminClient& admin)
      : context_(context), admin_(admin) {}

  void Show(const v1::TaskSnapshot& snapshot) {
    if (!snapshot.has_round()) return;
    const v1::Task& task = snapshot.task();
    const v1::Round& round = snapshot.round();
    if (first_) {
      // Rounds from before we came are `selvage list rounds`' business.
      next_ = round.number();
      first_ = false;
    }
    for (; next_ < round.number(); ++next_) {
      const auto missed = admin_.GetRound(task.name(), next_);
      if (missed.ok()) Print(*missed, task);
    }
    if (next_ == round.number() && Ended(round)) {
      Print(round, task);
      ++next_;
    }
  }

 private:
  void Print(const v1::Round& round, const v1::Task& task) {
    context_.output().out() << RoundLine(round, task.num_rounds()) << '\n';
    context_.output().out().flush();
  }

  Context& context_;
  AdminClient& admin_;
  bool first_ = true;
  uint64_t next_ = 0;
};

// Redraws a frame in place.
class Frames {
 public:
  explicit Frames(Context& context) : context_(context) {}

  void Show(const v1::TaskSnapshot& snapshot) {
    Output& output = context_.output();
    const std::vector<std::string> lines =
        WatchFrame(snapshot, ToMicros(context_.environment().clock.Now()),
                   {.width = context_.environment().width,
                    .color = output.color(),
                    .unicode = output.unicode()});
    std::string text = EraseFrame(drawn_);
    for (const std::string& line : lines) text += line + '\n';
    output.out() << text;
    output.out().flush();
    drawn_ = lines.size();
  }

 private:
  Context& context_;
  size_t drawn_ = 0;
};

Status OutcomeOf(const v1::Task& task) {
  if (task.state() == v1::Task::FINISHED) return OkStatus();
  return FailedPrecondition("task " + task.name() + " was stopped after " +
                            std::to_string(task.committed_rounds()) + " of " +
                            std::to_string(task.num_rounds()) + " rounds");
}

struct TimedOptions {
  std::string task;
  std::string timeout;
};

Result<ExitCode> Follow(Context& context, const TimedOptions& options,
                        bool show) {
  FollowOptions follow{.show = show, .timeout = std::nullopt};
  if (!options.timeout.empty()) {
    SELVAGE_ASSIGN_OR_RETURN(follow.timeout, ParseDuration(options.timeout));
  }
  SELVAGE_RETURN_IF_ERROR(FollowTask(context, options.task, follow));
  return ExitCode::kOk;
}

Result<ExitCode> StopTask(Context& context, const std::string& task,
                          const std::string& etag) {
  SELVAGE_ASSIGN_OR_RETURN(AdminClient* const admin, context.Admin());
  v1::StopTaskRequest request;
  request.set_name(task);
  request.set_etag(etag);
  request.set_request_id(context.RequestId());
  SELVAGE_ASSIGN_OR_RETURN(const v1::Task stopped, admin->StopTask(request));
  context.output().Data(ToJson(stopped),
                        [&] { return TaskLine(stopped) + "\n"; });
  return ExitCode::kOk;
}

CLI::App* AddFollowVerb(CLI::App& app, Verb& chosen, const char* name,
                        const char* description, bool show) {
  auto* verb = app.add_subcommand(name, description);
  const auto options = std::make_shared<TimedOptions>();
  verb->add_option("task", options->task, "the task's name")
      ->type_name("TASK")
      ->required();
  verb->add_option("--timeout", options->timeout,
                   "exit with 7 after this long, e.g. 10m")
      ->type_name("TIME");
  verb->callback([options, show, &chosen] {
    chosen = [options, show](Context& context) {
      return Follow(context, *options, show);
    };
  });
  return verb;
}

}  // namespace

Status FollowTask(Context& context, const std::string& name,
                  const FollowOptions& options) {
  SELVAGE_ASSIGN_OR_RETURN(AdminClient* const admin, context.Admin());
  Output& output = context.output();
  RoundLines round_lines(context, *admin);
  Frames frames(context);
  const bool live = output.terminal() && !output.json();
  v1::Task last;
  AdminClient::WatchOptions watch;
  watch.timeout = options.timeout;
  SELVAGE_RETURN_IF_ERROR(
      admin->WatchTask(name, watch, [&](const v1::TaskSnapshot& snapshot) {
        last = snapshot.task();
        if (!options.show) return true;
        if (output.json()) {
          output.JsonLine(ToJson(snapshot));
        } else if (live) {
          frames.Show(snapshot);
        } else {
          round_lines.Show(snapshot);
        }
        return true;
      }));
  // A stream of JSON lines has said it; the rest is told the end.
  if (!output.json()) {
    output.out() << TaskLine(last) << '\n';
    output.out().flush();
  } else if (!options.show) {
    output.Data(ToJson(last), [] { return std::string(); });
  }
  return OutcomeOf(last);
}

void AddTaskVerbs(CLI::App& app, Verb& chosen) {
  AddFollowVerb(app, chosen, "watch", "show a task while it runs", true)
      ->footer(
          R"(A live view on a terminal, a line a round elsewhere, one JSON document a line
under -o json. Ends with the task; Ctrl-C leaves the task running.

Examples:
  selvage watch fashion-personal
  selvage watch fashion-personal -o json | tee rounds.log)");
  AddFollowVerb(app, chosen, "wait", "wait until a task ended", false)
      ->footer(
          R"(Exit code 0 if the task finished, 6 if it was stopped, 7 after --timeout.

Examples:
  selvage wait fashion-personal --timeout 2h && selvage pull fashion-personal)");
  auto* stop = app.add_subcommand("stop", "end a task; its versions stay");
  struct Options {
    std::string task;
    std::string etag;
  };
  const auto options = std::make_shared<Options>();
  stop->add_option("task", options->task, "the task's name")
      ->type_name("TASK")
      ->required();
  stop->add_option("--etag", options->etag,
                   "stop only if the task still has this etag")
      ->type_name("ETAG");
  stop->footer(
      R"(The current round is abandoned; committed versions can still be pulled.
Stopping is the safe direction: nothing is asked.

Examples:
  selvage stop fashion-personal)");
  stop->callback([options, &chosen] {
    chosen = [options](Context& context) {
      return StopTask(context, options->task, options->etag);
    };
  });
}

}  // namespace selvage::cli

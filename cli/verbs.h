// The verbs, by group. Each function adds subcommands to `app`; parsing one
// sets `chosen` to what it does.
#pragma once

#include "cli/context.h"

namespace CLI {
class App;
}

namespace selvage::cli {

void AddRunVerbs(CLI::App& app, Verb& chosen);         // run, clone
void AddTaskVerbs(CLI::App& app, Verb& chosen);        // watch, wait, stop
void AddShowVerbs(CLI::App& app, Verb& chosen);        // list, show
void AddPopulationVerbs(CLI::App& app, Verb& chosen);  // population, token
void AddModelVerbs(CLI::App& app, Verb& chosen);       // model, pull, evaluate
void AddAdminVerbs(CLI::App& app, Verb& chosen);       // admin
void AddDoctorVerbs(CLI::App& app,
                    Verb& chosen);  // doctor, strategies, version

// Follows a task until it ends: a live frame on a terminal, a line a round
// otherwise, JSON lines under -o json. OK when it FINISHED; FAILED_PRECONDITION
// when it was stopped; DEADLINE_EXCEEDED after `timeout`.
struct FollowOptions {
  bool show = true;  // false: wait in silence
  std::optional<Duration> timeout;
};
Status FollowTask(Context& context, const std::string& name,
                  const FollowOptions& options);

}  // namespace selvage::cli

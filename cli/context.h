// What every verb gets: the options that all share, where to print, and the
// coordinator, connected to when first asked for.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/admin_client.h"
#include "cli/connection.h"
#include "cli/environment.h"
#include "cli/exit_code.h"
#include "cli/output.h"
#include "cli/torch_tool.h"

namespace selvage::cli {

struct GlobalOptions {
  ConnectionOptions connection;
  std::string request_id;  // empty: a fresh one
  bool no_input = false;
};

// Thread-compatible.
class Context {
 public:
  // References must outlive the context. `env` and `file` are the other two
  // levels of connection options.
  Context(Environment& environment, GlobalOptions options,
          ConnectionOptions env, ConnectionOptions file, OutputFormat format);

  Environment& environment() { return environment_; }
  Output& output() { return output_; }

  Result<Connection> ResolvedConnection();
  Result<AdminClient*> Admin();
  TorchTool& torch();

  // --request-id, or a random one: a retry of the same command line by hand
  // needs the former to be harmless.
  const std::string& RequestId();

  // Asks on a terminal. FAILED_PRECONDITION says to pass --yes if there is
  // nobody to ask; CANCELLED if the answer is no.
  Status Confirm(const std::string& question);

 private:
  Environment& environment_;
  GlobalOptions options_;
  const ConnectionOptions env_;
  const ConnectionOptions file_;
  Output output_;
  std::unique_ptr<AdminClient> admin_;
  std::unique_ptr<TorchTool> torch_;
};

using Verb = std::function<Result<ExitCode>(Context&)>;

}  // namespace selvage::cli

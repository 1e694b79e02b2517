// Examples that other programs put into a folder: imports each file or folder
// whole or not at all, and counts none twice whatever kills the process.
//
//   NAME.safetensors  one tensor for each input, named as in the collection
//   NAME.csv          a table of the manifest that the spool was given
//   NAME/             manifest.json (else the spool's), its table, and images
#pragma once

#include <atomic>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/status.h"
#include "client/agent/manifest.h"
#include "client/agent/spool_folder.h"
#include "client/capi/selvage.hpp"

namespace selvage::agent {

struct SpoolOptions {
  // For files that bring none; by collection for safetensors.
  std::vector<Manifest> manifests = {};
  // For safetensors files without any manifest.
  std::string collection = "default";
  std::vector<std::string> inputs = {"x", "y"};
  bool keep_done = false;  // else what was imported is deleted
  size_t kept_max = SpoolFolder::kKeptMax;
  uint64_t file_size_max = 256 << 20;
  size_t units_per_pass = 64;
};

struct SpoolPass {
  size_t imported = 0;  // files and folders
  size_t failed = 0;
  uint64_t examples = 0;  // in what was imported
  bool more = false;      // units are left that another pass would take
};

// Thread-compatible.
class Spool {
 public:
  // `events` must outlive it. Errors of SpoolFolder::Open().
  static Result<Spool> Open(const Path& path, SpoolOptions options,
                            EventSink& events);

  // Declares the collections of the options' manifests.
  Status Declare(host::Client& client) const;

  // Imports what is there, oldest first, until `stop`. Every example has a key
  // of its own (file and row), so that a file which was imported before a
  // crash, but not moved, adds nothing. Bad units go to failed/. Of what lies
  // in done/ and in failed/ the oldest above `kept_max` are deleted. An error
  // of the store that is not the unit's fault leaves it in the spool and ends
  // the pass with it.
  Result<SpoolPass> Import(host::Client& client, const std::atomic<bool>& stop);

  const Path& path() const { return folder_.path(); }

 private:
  struct Verdict {
    Status status;
    bool fault_of_unit = false;
    uint64_t examples = 0;
  };

  Spool(SpoolFolder folder, SpoolOptions options, EventSink& events)
      : folder_(std::move(folder)),
        options_(std::move(options)),
        events_(events) {}

  Result<SpoolPass> ImportUnits(host::Client& client,
                                const std::atomic<bool>& stop);
  Verdict ImportUnit(const SpoolUnit& unit, host::Client& client,
                     const std::atomic<bool>& stop);
  Verdict ImportTensors(const SpoolUnit& unit, host::Client& client,
                        const std::atomic<bool>& stop);
  Verdict ImportTable(const SpoolUnit& unit, host::Client& client,
                      const std::atomic<bool>& stop);
  template <typename Open>
  Verdict ImportAll(const SpoolUnit& unit, const std::string& identity,
                    const Manifest& manifest, Open open, host::Client& client,
                    const std::atomic<bool>& stop);
  Result<Manifest> ManifestOf(const SpoolUnit& unit) const;

  SpoolFolder folder_;
  const SpoolOptions options_;
  EventSink& events_;
  // What could not be moved away, by name: not looked at again.
  std::map<std::string, SpoolUnit> stuck_;
};

}  // namespace selvage::agent

#include "client/agent/spool.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "client/agent/device.h"
#include "client/agent/json.h"
#include "client/agent/table.h"
#include "client/agent/tensor_file.h"

namespace selvage::agent {
namespace {

constexpr size_t kBatch = 256;
constexpr uint64_t kBatchBytesMax = 32 << 20;
constexpr uint64_t kManifestSizeMax = 4 << 20;
constexpr uint64_t kImageSizeMax = 32 << 20;
// Part of every example's key, which has at most 256 bytes.
constexpr size_t kNameSizeMax = 128;

host::Example ToHost(const SpooledExample& from, const Manifest& manifest,
                     std::string key) {
  std::vector<host::Tensor> tensors;
  for (size_t i = 0; i < from.tensors.size(); ++i) {
    tensors.push_back({from.tensors[i].data(), from.tensors[i].size(),
                       manifest.tensors[i].dtype, manifest.tensors[i].shape});
  }
  host::Example example(std::move(tensors));
  if (from.timestamp_us.has_value()) {
    example.timestamp =
        host::SystemTime(std::chrono::duration_cast<host::SystemTime::duration>(
            host::Microseconds(*from.timestamp_us)));
  }
  example.local_only = from.local_only;
  example.key = std::move(key);
  return example;
}

}  // namespace

Result<Spool> Spool::Open(const Path& path, SpoolOptions options,
                          EventSink& events) {
  SELVAGE_ASSIGN_OR_RETURN(SpoolFolder folder, SpoolFolder::Open(path));
  return Spool(std::move(folder), std::move(options), events);
}

Status Spool::Declare(host::Client& client) const {
  for (const Manifest& manifest : options_.manifests) {
    try {
      client.DeclareCollection(manifest.collection, manifest.Declaration());
    } catch (const host::Error& error) {
      return StatusOf(error).WithContext("the manifest");
    }
  }
  return OkStatus();
}

Result<SpoolPass> Spool::Import(host::Client& client,
                                const std::atomic<bool>& stop) {
  Result<SpoolPass> pass = ImportUnits(client, stop);
  const Result<size_t> removed = folder_.TrimKept(options_.kept_max);
  if (!removed.ok()) {
    events_.Write(LogLevel::kWarning, "spool_not_trimmed",
                  {{"reason", removed.status().ToString()}});
  } else if (*removed > 0) {
    events_.Write(LogLevel::kInfo, "spool_trimmed",
                  {{"removed", *removed}, {"kept", options_.kept_max}});
  }
  return pass;
}

Result<SpoolPass> Spool::ImportUnits(host::Client& client,
                                     const std::atomic<bool>& stop) {
  SELVAGE_ASSIGN_OR_RETURN(const std::vector<SpoolUnit> units, folder_.List());
  SpoolPass pass;
  for (const SpoolUnit& unit : units) {
    if (stop.load()) return pass;
    const auto stuck = stuck_.find(unit.name);
    if (stuck != stuck_.end() && stuck->second == unit) continue;
    if (pass.imported + pass.failed >= options_.units_per_pass) {
      pass.more = true;
      return pass;
    }
    const Verdict verdict = ImportUnit(unit, client, stop);
    if (verdict.status.code() == StatusCode::kCancelled) return pass;
    Status moved;
    if (verdict.status.ok()) {
      ++pass.imported;
      pass.examples += verdict.examples;
      moved =
          options_.keep_done ? folder_.MoveToDone(unit) : folder_.Delete(unit);
      events_.Write(LogLevel::kInfo, "spool_imported",
                    {{"unit", unit.name}, {"examples", verdict.examples}});
    } else if (verdict.fault_of_unit) {
      ++pass.failed;
      moved = folder_.MoveToFailed(unit, verdict.status.ToString());
      events_.Write(
          LogLevel::kWarning, "spool_failed",
          {{"unit", unit.name}, {"reason", verdict.status.ToString()}});
    } else {
      return verdict.status.WithContext("spool, " + Quoted(unit.name));
    }
    if (!moved.ok()) {
      events_.Write(LogLevel::kError, "spool_stuck",
                    {{"unit", unit.name}, {"reason", moved.ToString()}});
      stuck_[unit.name] = unit;
    }
  }
  return pass;
}

Spool::Verdict Spool::ImportUnit(const SpoolUnit& unit, host::Client& client,
                                 const std::atomic<bool>& stop) {
  const auto bad = [](Status status) {
    return Verdict{.status = std::move(status), .fault_of_unit = true};
  };
  if (unit.name.size() > kNameSizeMax) {
    return bad(
        InvalidArgument("the name has " + std::to_string(unit.name.size()) +
                        " bytes, more than " + std::to_string(kNameSizeMax)));
  }
  if (unit.folder || unit.name.ends_with(".csv")) {
    return ImportTable(unit, client, stop);
  }
  if (unit.name.ends_with(".safetensors")) {
    return ImportTensors(unit, client, stop);
  }
  return bad(InvalidArgument(Quoted(unit.name) +
                             " is neither .safetensors, .csv nor a folder"));
}

Result<Manifest> Spool::ManifestOf(const SpoolUnit& unit) const {
  if (unit.folder) {
    const Result<SpoolFile> file =
        folder_.Read(unit.name + "/manifest.json", kManifestSizeMax);
    if (file.ok()) {
      Result<Manifest> manifest = ParseManifest(AsText(file->bytes));
      if (!manifest.ok()) return manifest.status().WithContext("manifest.json");
      return manifest;
    }
    if (file.status().code() != StatusCode::kNotFound) return file.status();
  }
  if (options_.manifests.size() != 1) {
    return InvalidArgument(
        "a table without a manifest.json of its own needs one manifest of the "
        "service, which has " +
        std::to_string(options_.manifests.size()));
  }
  return options_.manifests.front();
}

Spool::Verdict Spool::ImportTable(const SpoolUnit& unit, host::Client& client,
                                  const std::atomic<bool>& stop) {
  const auto bad = [](Status status) {
    return Verdict{.status = std::move(status), .fault_of_unit = true};
  };
  const Result<Manifest> manifest = ManifestOf(unit);
  if (!manifest.ok()) return bad(manifest.status());
  const std::string path =
      unit.folder ? unit.name + "/" + manifest->table : unit.name;
  const Result<SpoolFile> table = folder_.Read(path, options_.file_size_max);
  if (!table.ok()) return bad(table.status());
  const ImageLoader images = [&](const std::string& name) -> Result<Bytes> {
    if (!unit.folder) {
      return InvalidArgument("images come in a folder with their table");
    }
    SELVAGE_ASSIGN_OR_RETURN(
        SpoolFile image, folder_.Read(unit.name + "/" + name, kImageSizeMax));
    return std::move(image.bytes);
  };
  // A folder may bring a collection that nobody has declared.
  if (unit.folder) {
    const bool declared =
        std::any_of(options_.manifests.begin(), options_.manifests.end(),
                    [&](const Manifest& m) {
                      return m.collection == manifest->collection;
                    });
    if (!declared) {
      try {
        client.DeclareCollection(manifest->collection, manifest->Declaration());
      } catch (const host::Error& error) {
        return {.status = StatusOf(error),
                .fault_of_unit = error.code() == SELVAGE_INVALID_ARGUMENT};
      }
    }
  }
  return ImportAll(
      unit, table->identity, *manifest,
      [&] { return OpenTable(AsText(table->bytes), *manifest, images); },
      client, stop);
}

Spool::Verdict Spool::ImportTensors(const SpoolUnit& unit, host::Client& client,
                                    const std::atomic<bool>& stop) {
  const auto bad = [](Status status) {
    return Verdict{.status = std::move(status), .fault_of_unit = true};
  };
  const Result<SpoolFile> file =
      folder_.Read(unit.name, options_.file_size_max);
  if (!file.ok()) return bad(file.status());
  const Result<TensorFile> tensors = TensorFile::Parse(file->bytes);
  if (!tensors.ok()) return bad(tensors.status());
  const std::string& collection = tensors->collection();
  Result<Manifest> manifest = InvalidArgument(
      collection.empty()
          ? "__metadata__ names no collection, and the service has several"
          : "collection " + Quoted(collection) + " is not one of the service");
  if (options_.manifests.empty()) {
    manifest = tensors->ManifestFor(
        collection.empty() ? options_.collection : collection, options_.inputs);
  } else if (collection.empty() && options_.manifests.size() == 1) {
    manifest = options_.manifests.front();
  }
  for (const Manifest& known : options_.manifests) {
    if (known.collection == collection) manifest = known;
  }
  if (!manifest.ok()) return bad(manifest.status());
  return ImportAll(
      unit, file->identity, *manifest, [&] { return tensors->Read(*manifest); },
      client, stop);
}

template <typename OpenReader>
Spool::Verdict Spool::ImportAll(const SpoolUnit& unit,
                                const std::string& identity,
                                const Manifest& manifest, OpenReader open,
                                host::Client& client,
                                const std::atomic<bool>& stop) {
  const auto bad = [](Status status) {
    return Verdict{.status = std::move(status), .fault_of_unit = true};
  };
  const Status stopped = Cancelled("the service stops");
  // Twice: first to see that every example is good, so that of a bad file none
  // is imported, and memory holds a batch and not a table.
  uint64_t count = 0;
  {
    Result<std::unique_ptr<ExampleReader>> reader = open();
    if (!reader.ok()) return bad(reader.status());
    for (;; ++count) {
      if (stop.load()) return {.status = stopped};
      const Result<std::optional<SpooledExample>> example = (*reader)->Next();
      if (!example.ok()) return bad(example.status());
      if (!example->has_value()) break;
    }
  }
  if (count == 0) return bad(InvalidArgument("it holds no example"));
  Result<std::unique_ptr<ExampleReader>> reader = open();
  if (!reader.ok()) return bad(reader.status());
  const std::string prefix = unit.name + "/" + identity + "/";
  uint64_t done = 0;
  for (bool end = false; !end;) {
    if (stop.load()) return {.status = stopped};
    std::vector<SpooledExample> batch;
    uint64_t bytes = 0;
    while (batch.size() < kBatch && bytes < kBatchBytesMax) {
      Result<std::optional<SpooledExample>> example = (*reader)->Next();
      // Something changed beneath us since the first look.
      if (!example.ok()) return bad(example.status());
      if (!example->has_value()) {
        end = true;
        break;
      }
      for (const Bytes& tensor : (*example)->tensors) bytes += tensor.size();
      batch.push_back(**std::move(example));
    }
    if (batch.empty()) break;
    std::vector<host::Example> given;
    for (size_t i = 0; i < batch.size(); ++i) {
      given.push_back(
          ToHost(batch[i], manifest, prefix + std::to_string(done + i)));
    }
    try {
      client.AddExamples(manifest.collection, given);
    } catch (const host::Error& error) {
      return {.status = StatusOf(error),
              .fault_of_unit = error.code() == SELVAGE_INVALID_ARGUMENT};
    }
    done += batch.size();
    events_.Write(LogLevel::kDebug, "spool_batch",
                  {{"unit", unit.name}, {"examples", done}, {"of", count}});
  }
  return {.status = OkStatus(), .fault_of_unit = false, .examples = done};
}

}  // namespace selvage::agent

#include "bench/accuracy/data.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <string>
#include <utility>

#include "base/check.h"
#include "client/agent/idx.h"
#include "examples/quickstart/partition.h"
#include "examples/users/data_sets.h"

namespace selvage::bench {
namespace {

using client::ExampleSet;
using quickstart::LabelledImages;

constexpr uint64_t kFileSizeMax = uint64_t{1} << 30;
constexpr size_t kLabels = 10;

struct Images {
  LabelledImages train;
  LabelledImages test;
};

Result<Images> ReadImages(FileSystem& files, const Path& folder) {
  Images out;
  SELVAGE_ASSIGN_OR_RETURN(
      out.train,
      quickstart::ReadLabelledImages(files, folder / "train-images-idx3-ubyte",
                                     folder / "train-labels-idx1-ubyte"));
  SELVAGE_ASSIGN_OR_RETURN(
      out.test,
      quickstart::ReadLabelledImages(files, folder / "t10k-images-idx3-ubyte",
                                     folder / "t10k-labels-idx1-ubyte"));
  return out;
}

ExampleSet Take(const LabelledImages& from, const std::vector<size_t>& which) {
  ExampleSet out;
  out.count = which.size();
  out.inputs.resize(2);
  for (const size_t i : which) {
    AppendBytes(out.inputs[0],
                ByteSpan(from.pixels)
                    .subspan(i * from.image_bytes(), from.image_bytes()));
    AppendLe(out.inputs[1], int64_t{from.labels[i]});
  }
  return out;
}

ExampleSet TakeAll(const LabelledImages& from) {
  std::vector<size_t> all(from.labels.size());
  std::iota(all.begin(), all.end(), size_t{0});
  return Take(from, all);
}

// Devices learn from the training images, dealt out; the test is everybody's.
Result<FederationData> Dealt(FileSystem& files, const Path& folder,
                             const std::function<Parts(const Images&)>& deal) {
  SELVAGE_ASSIGN_OR_RETURN(const Images images, ReadImages(files, folder));
  FederationData data;
  for (const std::vector<size_t>& part : deal(images)) {
    data.devices.push_back({Take(images.train, part), {}});
  }
  data.test = TakeAll(images.test);
  return data;
}

Result<FederationData> QuickstartUsers(FileSystem& files, const Path& folder,
                                       uint64_t seed) {
  SELVAGE_ASSIGN_OR_RETURN(const Images images, ReadImages(files, folder));
  quickstart::PartitionSpec spec;
  spec.seed = seed;
  FederationData data;
  for (const quickstart::DeviceShare& share :
       quickstart::Partition(images.train.labels, images.test.labels, spec)) {
    auto& to = data.devices.size() < static_cast<size_t>(spec.devices)
                   ? data.devices
                   : data.newcomers;
    to.push_back(
        {Take(images.train, share.train), Take(images.test, share.test)});
  }
  return data;
}

// What a device would read from the files that selvage-users-tool writes.
Result<ExampleSet> Of(const users::Examples& examples) {
  ExampleSet out;
  for (const users::Column* column : {&examples.x, &examples.y}) {
    SELVAGE_ASSIGN_OR_RETURN(agent::IdxRows rows,
                             agent::ParseIdx(column->Encode()));
    out.count = rows.count;
    out.inputs.push_back(std::move(rows.rows));
  }
  return out;
}

Result<FederationData> OfUsers(const users::Users& all, size_t devices) {
  FederationData data;
  for (const users::User& user : all) {
    DeviceExamples examples;
    SELVAGE_ASSIGN_OR_RETURN(examples.train, Of(user.train));
    SELVAGE_ASSIGN_OR_RETURN(examples.test, Of(user.test));
    auto& to = data.devices.size() < devices ? data.devices : data.newcomers;
    to.push_back(std::move(examples));
  }
  return data;
}

Result<FederationData> Har(FileSystem& files, const Path& folder,
                           uint32_t channels) {
  SELVAGE_ASSIGN_OR_RETURN(const Bytes index,
                           ReadFile(files, folder / "index.csv", kFileSizeMax));
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes series,
      ReadFile(files, folder / "series_i16le_9ch.bin", kFileSizeMax));
  SELVAGE_ASSIGN_OR_RETURN(
      const users::ActivityUsers all,
      users::ReadActivity(AsText(index), series, channels));
  return OfUsers(all.users, all.devices);
}

Result<FederationData> Wisdm(FileSystem& files, const Path& folder,
                             uint64_t seed) {
  SELVAGE_ASSIGN_OR_RETURN(
      const Bytes arff,
      ReadFile(files, folder / "WISDM_ar_v1.1_transformed.arff", kFileSizeMax));
  const users::Sample sample{.devices = 30, .newcomers = 6, .seed = seed};
  SELVAGE_ASSIGN_OR_RETURN(const users::Users all,
                           users::ReadWisdm(AsText(arff), sample));
  return OfUsers(all, sample.devices);
}

// The examples of every label, shuffled.
std::array<std::vector<size_t>, kLabels> ByLabel(
    const std::vector<uint8_t>& labels, RandomSource& random) {
  std::array<std::vector<size_t>, kLabels> out;
  for (size_t i = 0; i < labels.size(); ++i) out.at(labels[i]).push_back(i);
  for (std::vector<size_t>& indices : out) Shuffle(indices, random);
  return out;
}

// Where piece `i` of `pieces` equal ones begins.
size_t Cut(size_t count, size_t i, size_t pieces) { return count * i / pieces; }

}  // namespace

Parts DealEvenly(size_t count, size_t parts, RandomSource& random) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  Shuffle(order, random);
  const size_t each = count / parts;
  Parts out(parts);
  for (size_t part = 0; part < parts; ++part) {
    const auto begin = order.begin() + static_cast<std::ptrdiff_t>(part * each);
    out[part].assign(begin, begin + static_cast<std::ptrdiff_t>(each));
  }
  return out;
}

Parts DealShards(const std::vector<uint8_t>& labels, size_t parts,
                 size_t shards, RandomSource& random) {
  std::vector<size_t> order(labels.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return labels[a] < labels[b]; });
  const size_t pieces = parts * shards;
  std::vector<size_t> deal(pieces);
  std::iota(deal.begin(), deal.end(), size_t{0});
  Shuffle(deal, random);
  const size_t each = labels.size() / pieces;
  Parts out(parts);
  for (size_t i = 0; i < pieces; ++i) {
    const auto begin =
        order.begin() + static_cast<std::ptrdiff_t>(deal[i] * each);
    out[i / shards].insert(out[i / shards].end(), begin,
                           begin + static_cast<std::ptrdiff_t>(each));
  }
  return out;
}

Parts DealDirichlet(const std::vector<uint8_t>& labels, size_t parts,
                    double alpha, RandomSource& random) {
  constexpr size_t kLeast = 10;
  SELVAGE_CHECK(labels.size() >= kLeast * parts);
  for (;;) {
    Parts out(parts);
    for (const std::vector<size_t>& indices : ByLabel(labels, random)) {
      std::vector<double> p = quickstart::SampleDirichlet(alpha, parts, random);
      double sum = 0;
      for (size_t part = 0; part < parts; ++part) {
        if (out[part].size() * parts >= labels.size()) p[part] = 0;
        sum += p[part];
      }
      if (sum <= 0) continue;
      double reached = 0;
      size_t begin = 0;
      for (size_t part = 0; part < parts; ++part) {
        reached += p[part] / sum;
        const size_t end =
            part + 1 == parts
                ? indices.size()
                : std::min(indices.size(),
                           static_cast<size_t>(
                               reached * static_cast<double>(indices.size())));
        out[part].insert(out[part].end(),
                         indices.begin() + static_cast<std::ptrdiff_t>(begin),
                         indices.begin() + static_cast<std::ptrdiff_t>(end));
        begin = end;
      }
    }
    if (std::all_of(out.begin(), out.end(),
                    [](const auto& part) { return part.size() >= kLeast; })) {
      return out;
    }
  }
}

Parts DealLabels(const std::vector<uint8_t>& labels, size_t parts,
                 size_t per_part, RandomSource& random) {
  SELVAGE_CHECK(per_part <= kLabels);
  std::vector<std::vector<size_t>> owners(kLabels);
  for (size_t part = 0; part < parts; ++part) {
    std::vector<size_t> own = {part % kLabels};
    while (own.size() < per_part) {
      const auto label = static_cast<size_t>(UniformBelow(random, kLabels));
      if (std::find(own.begin(), own.end(), label) == own.end()) {
        own.push_back(label);
      }
    }
    for (const size_t label : own) owners[label].push_back(part);
  }
  const auto by_label = ByLabel(labels, random);
  Parts out(parts);
  for (size_t label = 0; label < kLabels; ++label) {
    const std::vector<size_t>& indices = by_label.at(label);
    for (size_t i = 0; i < owners[label].size(); ++i) {
      const auto at = [&](size_t piece) {
        return indices.begin() +
               static_cast<std::ptrdiff_t>(
                   Cut(indices.size(), piece, owners[label].size()));
      };
      std::vector<size_t>& part = out[owners[label][i]];
      part.insert(part.end(), at(i), at(i + 1));
    }
  }
  return out;
}

Result<FederationData> LoadData(FileSystem& files, const Path& folder,
                                DataSet data_set, uint64_t seed) {
  SeededRandom random(DeriveSeed(seed, "deal", 0));
  const Path fashion = folder / "fashion";
  const Path mnist = folder / "mnist";
  switch (data_set) {
    case DataSet::kMnistIid:
      return Dealt(files, mnist, [&](const Images& images) {
        return DealEvenly(images.train.labels.size(), 100, random);
      });
    case DataSet::kMnistTwoShards:
      return Dealt(files, mnist, [&](const Images& images) {
        return DealShards(images.train.labels, 100, 2, random);
      });
    case DataSet::kFashionIid:
      return Dealt(files, fashion, [&](const Images& images) {
        return DealEvenly(images.train.labels.size(), 10, random);
      });
    case DataSet::kFashionDirichlet:
      return Dealt(files, fashion, [&](const Images& images) {
        return DealDirichlet(images.train.labels, 10, 0.5, random);
      });
    case DataSet::kFashionTwoLabels:
      return Dealt(files, fashion, [&](const Images& images) {
        return DealLabels(images.train.labels, 10, 2, random);
      });
    case DataSet::kFashionSmall:
      return Dealt(files, fashion, [&](const Images& images) {
        Parts parts = DealEvenly(images.train.labels.size(), 200, random);
        parts.resize(20);
        return parts;
      });
    case DataSet::kFashionUsers:
      return QuickstartUsers(files, fashion, seed);
    case DataSet::kHar:
      return Har(files, folder / "uci_har", 9);
    case DataSet::kHarAccelerometer:
      return Har(files, folder / "uci_har", 3);
    case DataSet::kWisdm:
      return Wisdm(files, folder / "wisdm", seed);
  }
  return InvalidArgument("there is no such data set");
}

}  // namespace selvage::bench

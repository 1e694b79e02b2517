// The data sets of docs/results.md and how they are dealt out to devices. A
// folder holds the sets' own files, unpacked: fashion/ and mnist/ (IDX),
// uci_har/, wisdm/; scripts/results puts them there.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/file_system.h"
#include "base/random.h"
#include "base/status.h"
#include "bench/accuracy/federation.h"

namespace selvage::bench {

enum class DataSet {
  kMnistIid,          // 100 devices x 600 images
  kMnistTwoShards,    // the same, two labels or so each (McMahan et al., 2017)
  kFashionIid,        // 10 x 6,000
  kFashionDirichlet,  // 10, by Dirichlet(0.5)
  kFashionTwoLabels,  // 10, two labels each
  kFashionSmall,      // 20 x 300, IID
  kFashionUsers,      // the quickstart: 30 + 5, 60 images each, own tests
  kHar,               // UCI HAR: 21 + 9 subjects, own tests
  kHarAccelerometer,  // the same, three channels
  kWisdm,             // WISDM: 30 + 6 users, own tests
};

// NOT_FOUND names a file that is not there. Depends on files and seed alone.
Result<FederationData> LoadData(FileSystem& files, const Path& folder,
                                DataSet data_set, uint64_t seed);

// Partitions of labelled examples: indices per part, no example twice.
using Parts = std::vector<std::vector<size_t>>;

// Shuffled, in parts of equal size; a rest that does not fill one is left out.
Parts DealEvenly(size_t count, size_t parts, RandomSource& random);

// Sorted by label and cut into `shards` equal pieces for each part, which are
// dealt at random (McMahan et al., 2017).
Parts DealShards(const std::vector<uint8_t>& labels, size_t parts,
                 size_t shards, RandomSource& random);

// Of each label, p ~ Dirichlet(alpha) says which share goes to which part;
// parts that have more than their equal share get no more. Drawn again until
// everybody has ten examples (Li et al., NIID-Bench, 2022).
Parts DealDirichlet(const std::vector<uint8_t>& labels, size_t parts,
                    double alpha, RandomSource& random);

// Part i has label i mod 10 and others, drawn, `per_part` together; who has a
// label shares its examples evenly (NIID-Bench). Labels are 0..9.
Parts DealLabels(const std::vector<uint8_t>& labels, size_t parts,
                 size_t per_part, RandomSource& random);

}  // namespace selvage::bench

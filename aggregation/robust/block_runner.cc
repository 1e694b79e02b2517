#include "aggregation/robust/block_runner.h"

#include <cmath>
#include <string>
#include <thread>

namespace selvage::aggregation::robust {

Status Rows::Load(const UpdateBlocks& updates, size_t index) {
  range = updates.block(index);
  update_count = updates.update_count();
  values_.resize(update_count * range.count);
  for (size_t u = 0; u < update_count; ++u) {
    const std::span<float> values = row(u);
    SELVAGE_RETURN_IF_ERROR(updates.Read(u, index, values));
    for (size_t i = 0; i < values.size(); ++i) {
      if (!std::isfinite(values[i])) {
        return Internal("update " + std::to_string(u) + ", element " +
                        std::to_string(range.begin + i) + " is not finite");
      }
      values[i] += 0.0f;
    }
  }
  return OkStatus();
}

Status RunBlocks(const UpdateBlocks& updates, size_t threads,
                 const BlockWork& work) {
  std::vector<size_t> blocks;
  for (size_t i = 0; i < updates.block_count(); ++i) {
    if (!work.wanted || work.wanted(updates.block(i))) blocks.push_back(i);
  }
  const size_t slots = std::max<size_t>(1, std::min(threads, blocks.size()));
  std::vector<Rows> rows(slots);
  std::vector<Status> results(slots);
  const auto run = [&](size_t slot, size_t index) {
    results[slot] = rows[slot].Load(updates, index);
    if (results[slot].ok()) work.compute(slot, rows[slot]);
  };
  for (size_t first = 0; first < blocks.size(); first += slots) {
    const size_t wave = std::min(slots, blocks.size() - first);
    std::vector<std::thread> others;
    for (size_t slot = 1; slot < wave; ++slot) {
      others.emplace_back(run, slot, blocks[first + slot]);
    }
    run(0, blocks[first]);
    for (std::thread& other : others) other.join();
    for (size_t slot = 0; slot < wave; ++slot) {
      SELVAGE_RETURN_IF_ERROR(results[slot]);
      if (work.reduce) work.reduce(slot);
    }
  }
  return OkStatus();
}

}  // namespace selvage::aggregation::robust

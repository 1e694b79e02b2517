// The sums of an open round, in memory: of the partials that this process has
// written itself, so that closing the round need not read, open and check what
// was in memory a moment before. Only a short cut. What counts are the partials
// that committed rows name; where these are not exactly known to be in here,
// they are read.
//
// Exact sums do not depend on the order they are added in, so a model is the
// same to the bit with and without the short cut.
//
// Thread-compatible: the round's driver owns it.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "aggregation/exact_sum.h"
#include "coordinator/byte_budget.h"
#include "coordinator/store.h"

namespace selvage::coordinator {

class RunningSums {
 public:
  // The most that the sums of all open rounds of a process may take: 16 Mi
  // values. Where the allocator keeps that much from round to round (main.cc):
  // fresh memory in every round would cost as much as reading partials.
  static constexpr uint64_t kBytesMax = uint64_t{128} << 20;

  struct Kept {
    std::set<std::string> ids;                // of the partials
    std::vector<aggregation::ExactSum> sums;  // by stretch
    ByteBudget::Share share;                  // given up with the sums
  };

  // `room` is shared with the other rounds and must outlive this.
  explicit RunningSums(ByteBudget& room) : room_(room) {}

  // Another round, or a round that is taken up again: nothing is in here.
  void Reset();

  // A partial of `value_count` sums is about to be written. Its stretches are
  // added in order as they are written, each once.
  void Begin(uint64_t value_count);
  void Add(size_t stretch, aggregation::ExactSum sum);
  // The partial that was added since Begin() has a committed row of this name.
  void Confirm(const std::string& id);
  // It has none, or nobody knows: the round's partials have to be read.
  void Drop();

  // Sums of some of the partials that `rows` name; nullopt: of none of them.
  // Nothing is in here afterwards.
  std::optional<Kept> Take(const std::vector<PartialRow>& rows);

 private:
  ByteBudget& room_;
  Kept kept_;
  bool pending_ = false;  // between Begin() and Confirm()
  bool dropped_ = false;  // until Reset()
};

}  // namespace selvage::coordinator

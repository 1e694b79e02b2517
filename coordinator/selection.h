// How many devices a round asks for, so that its goal is reached although some
// drop out (over-selection; Bonawitz et al., "Towards Federated Learning at
// Scale", 2019, assign 130 % at 6 to 10 % drop-out). Functions of what the
// store holds, so a restart changes nothing but by what came in since.
#pragma once

#include <cstdint>
#include <span>

#include "coordinator/store.h"

namespace selvage::coordinator {

// What became of a round's assignments: who sent an update (counted or late),
// and who vanished, gave up or was rejected. Devices that were still at work
// when the round closed are neither.
struct DropOut {
  uint64_t sent = 0;
  uint64_t lost = 0;
};
DropOut DropOutOf(std::span<const FunnelCount> counts);

// Rounds that are looked back on.
inline constexpr size_t kDropOutRounds = 5;

// The least number of slots of which `cohort` are expected to send, with one
// standard deviation to spare. The drop-out is that of `rounds` together with
// one more round, of `cohort` devices, that went as `first_guess` (assignments
// per wanted update, >= 1) says: so one bad round does not decide. Between
// `cohort` and kOverSelectionMax x cohort; without rounds, ceil(cohort x
// first_guess).
// REQUIRES: cohort > 0.
uint32_t SlotsFor(uint32_t cohort, double first_guess,
                  std::span<const DropOut> rounds);

}  // namespace selvage::coordinator

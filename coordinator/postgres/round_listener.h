// Wakes a replica when a round of another one changed its state: LISTEN on a
// connection of its own. A hint and no more; what is missed is found by
// polling.
#pragma once

#include <cstdint>
#include <functional>
#include <thread>

#include "base/log.h"
#include "base/status.h"
#include "coordinator/postgres/connection.h"

namespace selvage::coordinator {

class RoundListener {
 public:
  // Calls `on_hint` from a thread of its own. Through a pooler that hands
  // sessions from client to client (PgBouncer in transaction mode) nothing can
  // be heard: it says so once in the log and ends. A lost connection is opened
  // again. `log` and what `on_hint` needs must outlive it.
  RoundListener(const ConnectOptions& options, EventSink& log,
                std::function<void(uint64_t task_id)> on_hint);
  // Returns when the thread has ended; up to the connection's timeout, if it
  // is just being opened.
  ~RoundListener();
  RoundListener(const RoundListener&) = delete;
  RoundListener& operator=(const RoundListener&) = delete;

 private:
  void Run();
  // Until the connection is lost, or Stop. OK: there is nothing to be heard.
  Status Listen();
  // False: it is time to end.
  bool Pause();

  const ConnectOptions options_;
  EventSink& log_;
  const std::function<void(uint64_t)> on_hint_;
  int stop_pipe_[2] = {-1, -1};
  std::thread thread_;
};

}  // namespace selvage::coordinator

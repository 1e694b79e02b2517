// Who is inside of a client: one call by itself, any number of predictions
// beside it; and who must stay out: a second call, a forked child, everybody
// once it is being closed.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <mutex>

#include "base/status.h"

namespace selvage::capi {

class CallGate {
 public:
  CallGate();  // for the process that makes it
  CallGate(const CallGate&) = delete;
  CallGate& operator=(const CallGate&) = delete;

  // One call, until it is destroyed, by the thread that entered.
  class Call {
   public:
    Call() = default;
    ~Call();
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    // As the only one but for EnterBeside. FAILED_PRECONDITION: there is
    // another one, of this thread (a callback that calls back) or of another
    // thread; the process was forked; the client is being closed.
    Status EnterAlone(CallGate& gate);
    // Beside any other call.
    Status EnterBeside(CallGate& gate);

   private:
    Status Enter(CallGate& gate, bool alone);

    CallGate* gate_ = nullptr;
    bool alone_ = false;
    Call* outer_ = nullptr;  // that this thread is in already
    friend class CallGate;
  };

  // Lets nobody in any more and waits until everybody is out; once. The gate
  // may be destroyed then. FAILED_PRECONDITION, with nothing changed: a
  // callback of this client's asks for it, or the process was forked.
  Status Close();

 private:
  Status CheckProcess() const;
  bool HasThisThread() const;

  static thread_local Call* innermost_;

  const pid_t process_;
  std::mutex mu_;
  std::condition_variable all_out_;
  int inside_ = 0;
  bool alone_taken_ = false;
  bool closed_ = false;
};

}  // namespace selvage::capi

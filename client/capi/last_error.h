// The error text of each thread, and the way out of every C function.
#pragma once

#include <exception>
#include <new>

#include "base/status.h"
#include "client/capi/selvage.h"

namespace selvage::capi {

// Keeps the text for selvage_last_error() of this thread (cut to 1 KiB) and
// gives the code.
selvage_code Finish(const Status& status) noexcept;

// Runs `body`, which returns a Status: nothing that it throws gets out.
template <typename Body>
selvage_code Guarded(const Body& body) noexcept {
  try {
    return Finish(body());
  } catch (const std::bad_alloc&) {
    return Finish(ResourceExhausted("out of memory"));
  } catch (const std::exception& exception) {
    return Finish(Internal(exception.what()));
  } catch (...) {
    return Finish(Internal("a callback threw"));
  }
}

}  // namespace selvage::capi

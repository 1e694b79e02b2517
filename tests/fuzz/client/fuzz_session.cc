// Saved sessions: what restores must save to the same bytes, and live on
// whatever happens next: the last byte chooses the events.
#include <cstdint>

#include "base/check.h"
#include "client/core/session.h"

using selvage::ByteSpan;
using selvage::Result;
using selvage::SeededRandom;
using selvage::Time;
using selvage::client::Session;
using selvage::client::SessionAction;
using selvage::client::SessionActionKind;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const ByteSpan saved(data, size - 1);
  Result<Session> session = Session::Restore(saved);
  if (!session.ok()) return 0;
  const auto bytes = session->Save();
  SELVAGE_CHECK(
      std::equal(bytes.begin(), bytes.end(), saved.begin(), saved.end()));

  SeededRandom random(data[size - 1]);
  const Time now = selvage::FromMicros(1'700'000'000'000'000);
  SessionAction action = session->Step(
      selvage::client::SessionStarted{.enrolled = data[size - 1] % 4 != 0}, now,
      random);
  for (int i = 0; i < 20 && action.kind != SessionActionKind::kFinish; ++i) {
    selvage::client::SessionEvent event = selvage::client::SessionInterrupted{};
    switch (random.Next() % 3) {
      case 0:
        event = selvage::client::ActionFailed{.status =
                                                  selvage::Unavailable("lost")};
        break;
      case 1:
        switch (action.kind) {
          case SessionActionKind::kEnroll:
            event = selvage::client::DeviceEnrolled{};
            break;
          case SessionActionKind::kCheckIn:
            event = selvage::client::CheckedIn{};
            break;
          case SessionActionKind::kFetch:
            event = selvage::client::ArtefactsFetched{};
            break;
          case SessionActionKind::kTrain:
            event = selvage::client::UpdateRecorded{};
            break;
          case SessionActionKind::kUpload:
            event = selvage::client::ReceiptReceived{};
            break;
          case SessionActionKind::kAbandon:
            event = selvage::client::AssignmentAbandoned{};
            break;
          case SessionActionKind::kPersonalize:
            event = selvage::client::ModelPersonalized{};
            break;
          case SessionActionKind::kFinish:
            break;
        }
        break;
      default:
        break;
    }
    action = session->Step(event, now, random);
    SELVAGE_CHECK(Session::Restore(session->Save()).ok());
  }
  SELVAGE_CHECK(action.kind == SessionActionKind::kFinish);
  return 0;
}

#include "coordinator/upload_counter.h"

#include <optional>
#include <utility>
#include <variant>

namespace selvage::coordinator {

void UploadCounter::AddTask(uint64_t task_id, const TaskLabel& label) {
  MutexLock lock(mu_);
  tasks_.insert_or_assign(task_id, label);
}

TaskLabel UploadCounter::LabelOf(const DeviceIdentity& device,
                                 const std::string& assignment_id) {
  const std::optional<RoundKey> round = tickets_.RoundOf(assignment_id, device);
  if (round.has_value()) {
    MutexLock lock(mu_);
    const auto it = tasks_.find(round->task_id);
    if (it != tasks_.end()) return it->second;
  }
  TaskLabel label;
  label.population = device.population;
  return label;
}

BeginUploadCallback UploadCounter::Begin(const DeviceIdentity& device,
                                         const UploadHeader& header,
                                         BeginUploadCallback done) {
  Stream stream{LabelOf(device, header.assignment_id), header.size_bytes};
  telemetry_.UploadBegan(stream.label);
  return [this, stream = std::move(stream),
          done = std::move(done)](Result<BegunUpload> begun) {
    if (!begun.ok()) {
      Tell(stream, begun.status());
    } else if (const auto* receipt = std::get_if<Receipt>(&*begun)) {
      Tell(stream, *receipt);
    } else {
      MutexLock lock(mu_);
      streams_.emplace(std::get<UploadTicket>(*begun).upload_id, stream);
    }
    done(std::move(begun));
  };
}

ReceiptCallback UploadCounter::Finish(uint64_t upload_id,
                                      ReceiptCallback done) {
  Stream stream;
  {
    MutexLock lock(mu_);
    const auto it = streams_.find(upload_id);
    if (it == streams_.end()) return done;
    stream = std::move(it->second);
    streams_.erase(it);
  }
  return [this, stream = std::move(stream),
          done = std::move(done)](Result<Receipt> answer) {
    Tell(stream, answer);
    done(std::move(answer));
  };
}

void UploadCounter::Drop(uint64_t upload_id) {
  Stream stream;
  {
    MutexLock lock(mu_);
    const auto it = streams_.find(upload_id);
    if (it == streams_.end()) return;
    stream = std::move(it->second);
    streams_.erase(it);
  }
  UploadEnd end;
  end.result = UploadResult::kInterrupted;
  end.bytes = stream.bytes;
  telemetry_.UploadEnded(stream.label, end);
}

void UploadCounter::Tell(const Stream& stream, const Result<Receipt>& answer) {
  UploadEnd end;
  end.bytes = stream.bytes;
  if (!answer.ok()) {
    end.error = answer.status().code();
    if (end.error == StatusCode::kResourceExhausted) {
      telemetry_.RateLimited(RateLimit::kUploads);
    }
  } else if (answer->repeated) {
    end.result = UploadResult::kDuplicate;
  } else {
    switch (answer->status) {
      case ReceiptStatus::kAccepted:
        end.result = UploadResult::kAccepted;
        break;
      case ReceiptStatus::kLate:
        end.result = UploadResult::kLate;
        break;
      case ReceiptStatus::kRejected:
        end.result = UploadResult::kRejected;
        end.reason = answer->reason;
        break;
    }
    if (answer->reason == RejectReason::kBadToken) {
      telemetry_.AuthFailed(AuthFailure::kAssignmentToken);
    }
  }
  telemetry_.UploadEnded(stream.label, end);
}

}  // namespace selvage::coordinator

// The structs of client/core/transport.h <-> selvage.v1 messages. Strict: what
// a device does not understand it refuses (INVALID_ARGUMENT names the field).
#pragma once

#include <selvage/v1/device.pb.h>

#include "base/status.h"
#include "client/core/transport.h"

namespace selvage::client {

v1::Codec ToProto(plan::CodecName codec);
v1::EnrollRequest ToProto(const EnrollRequest& request);
Result<EnrollAnswer> FromProto(const v1::EnrollResponse& proto);

v1::CheckInRequest ToProto(const CheckInRequest& request);
Result<CheckInAnswer> FromProto(const v1::CheckInResponse& proto);

v1::UploadHeader ToProto(const UploadHeader& header);
Result<Receipt> FromProto(const v1::Receipt& proto);

// INVALID_ARGUMENT if max < min or over 90 days.
Result<RetryWindow> FromProto(const v1::RetryWindow& proto);

}  // namespace selvage::client

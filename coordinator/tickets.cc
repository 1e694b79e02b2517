#include "coordinator/tickets.h"

#include <charconv>

namespace selvage::coordinator {
namespace {

// Consumes "NUMBER." from the front.
std::optional<uint64_t> TakeNumber(std::string_view& text) {
  uint64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [next, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || next == end || *next != '.') return std::nullopt;
  text.remove_prefix(static_cast<size_t>(next - text.data()) + 1);
  return value;
}

}  // namespace

crypto::Digest Tickets::Mac(std::string_view label,
                            std::string_view message) const {
  Bytes input = ToBytes(label);
  AppendBytes(input, AsBytes(message));
  return crypto::HmacSha256(key_.ExposeSecret(), input);
}

crypto::Digest Tickets::EpochMac(std::string_view label,
                                 std::string_view message) const {
  if (epoch_.empty()) return Mac(label, message);
  // An epoch has neither dot nor line feed: no message without one begins so.
  return Mac(label, epoch_ + "\n" + std::string(message));
}

std::string EpochOf(const std::string& instance_id) {
  const size_t dot = instance_id.find('.');
  return dot == std::string::npos ? "" : instance_id.substr(dot + 1);
}

std::string Tickets::AssignmentId(const RoundKey& round,
                                  const DeviceIdentity& device) const {
  const std::string prefix =
      std::to_string(round.task_id) + "." + std::to_string(round.number) + ".";
  // Names hold no line feed, so the fields cannot run into each other. The
  // first 11 bytes keep the id within 64 characters for every pair of numbers.
  const crypto::Digest mac =
      EpochMac("selvage/v1 assignment id\n",
               prefix + "\n" + device.population + "\n" + device.device_id);
  return prefix + ToHex(mac.span().first(11));
}

std::optional<RoundKey> Tickets::RoundOf(const std::string& assignment_id,
                                         const DeviceIdentity& device) const {
  std::string_view rest = assignment_id;
  const std::optional<uint64_t> task = TakeNumber(rest);
  if (!task.has_value()) return std::nullopt;
  const std::optional<uint64_t> number = TakeNumber(rest);
  if (!number.has_value()) return std::nullopt;
  const RoundKey round{*task, *number};
  if (!crypto::EqualConstantTime(AsBytes(AssignmentId(round, device)),
                                 AsBytes(assignment_id))) {
    return std::nullopt;
  }
  return round;
}

crypto::Digest Tickets::AssignmentToken(
    const std::string& assignment_id) const {
  return EpochMac("selvage/v1 assignment token\n", assignment_id);
}

crypto::Digest Tickets::EnrolmentSecret(const std::string& token_id) const {
  return Mac("selvage/v1 enrolment secret\n", token_id);
}

Bytes Tickets::IdentityNonce(const crypto::Digest& key, Time now) const {
  Bytes nonce;
  AppendLe(nonce, ToMicros(now));
  Bytes message = nonce;
  AppendBytes(message, key.span());
  AppendBytes(nonce,
              EpochMac("selvage/v1 identity nonce\n", AsText(message)).span());
  return nonce;
}

std::optional<Time> Tickets::NonceMade(ByteSpan nonce,
                                       const crypto::Digest& key) const {
  ByteReader reader(nonce);
  const Result<int64_t> micros = reader.Read<int64_t>("time");
  if (!micros.ok()) return std::nullopt;
  const Time made = FromMicros(*micros);
  if (!crypto::EqualConstantTime(IdentityNonce(key, made), nonce)) {
    return std::nullopt;
  }
  return made;
}

}  // namespace selvage::coordinator

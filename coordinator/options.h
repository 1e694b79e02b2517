// What a coordinator is told, and what it is given.
#pragma once

#include <cstdint>
#include <string>

#include "base/log.h"
#include "base/random.h"
#include "base/status.h"
#include "base/time.h"
#include "coordinator/api.h"
#include "coordinator/blob_store.h"
#include "coordinator/delta_cache.h"
#include "coordinator/store.h"
#include "coordinator/telemetry.h"
#include "crypto/secret.h"
#include "crypto/signature.h"
#include "crypto/x509.h"

namespace selvage::coordinator {

inline constexpr Duration kIdentityCertificateMax = std::chrono::hours(24);

struct CoordinatorOptions {
  // What a token bundle tells devices to connect to: HOST:PORT.
  std::string device_endpoint{};
  // No TLS (loopback only, explicit): bundles name no CA.
  bool insecure = false;

  // When a device comes back (coordinator/pace.h). `pace` is the least, that of
  // a population whose check-ins stay below the target (config: pace.retry_min,
  // pace.retry_max).
  RetryWindow pace{std::chrono::seconds(60), std::chrono::seconds(120)};
  double pace_target_per_second = 2000;  // of one population, at this process
  Duration pace_window_max = std::chrono::hours(24);
  Duration pace_accepted_min{};
  // Devices waiting for a draw come back within round_deadline / 600, but not
  // sooner than candidate_retry_min and not later than candidate_retry_max or
  // pace.max.
  Duration candidate_retry_min = std::chrono::milliseconds(50);
  Duration candidate_retry_max = std::chrono::seconds(30);

  // Admission of uploads: bytes announced by uploads that are staged or wait
  // for their commit. One upload is always admitted, whatever its size.
  uint64_t upload_bytes_max = uint64_t{256} << 20;
  // An upload larger than this is staged on disk, sealed, if its encoding can
  // be folded a stretch at a time (float32, bfloat16; not for strategies that
  // hold updates). Together they take at most `staged_bytes_max` of disk; an
  // upload that is larger by itself stays in memory.
  uint64_t staged_above = uint64_t{64} << 20;
  uint64_t staged_bytes_max = uint64_t{16} << 30;
  // What a broken stream left behind is kept this long for a resume.
  Duration staging_ttl = std::chrono::seconds(60);

  // Disk for the updates of one round that a strategy must see by themselves:
  // a task whose rounds could need more is refused.
  uint64_t held_bytes_max = uint64_t{8} << 30;
  // For such strategies' rules, and for the writing of large versions; results
  // do not depend on it. 1..64
  size_t rule_threads = 2;

  // Group commit: flush at this many updates or when the oldest is this old.
  size_t batch_updates_max = 16;
  Duration batch_age_max = std::chrono::milliseconds(500);

  // Several coordinators over one store and one blob store
  // (docs/decisions/0011). `poll` bounds what one does not know yet of what the
  // others did.
  struct Replicas {
    bool shared = false;
    std::string name = {};  // in the log and the names of claims
    // How long nobody drives the tasks of one that died.
    Duration claim_ttl = std::chrono::seconds(10);
    Duration poll = std::chrono::milliseconds(250);
    // A turn of the worker that takes longer counts as hung: its claims are not
    // renewed any more.
    Duration turn_max = std::chrono::minutes(10);
  };
  Replicas replicas{};

  // What may be spent so that devices download less.
  DeltaCache::Limits deltas{};

  Duration certificate_lifetime = std::chrono::hours(24 * 365);
  // Of devices whose identity key stays in a keystore, while their TLS key does
  // not: at most kIdentityCertificateMax.
  Duration identity_certificate_lifetime = kIdentityCertificateMax;

  // INVALID_ARGUMENT names field, value and bound.
  Status Validate() const;
};

// All of it must outlive the coordinator. `random` must be thread-safe.
struct CoordinatorDependencies {
  Store& store;
  BlobStore& blobs;
  Clock& clock;  // certificates and the worker's sleep; leases use Store::Now()
  RandomSource& random;
  EventSink& events;
  const crypto::CertificateAuthority& authority;
  const crypto::Ed25519KeyPair& plan_key;   // signs plans
  const crypto::SecretBytes& wrapping_key;  // 32 bytes: wraps round keys
  const crypto::SecretBytes& server_key;    // 32 bytes: assignment tokens
  Telemetry* telemetry = nullptr;           // null: nobody watches
};

}  // namespace selvage::coordinator

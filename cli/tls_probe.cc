#include "cli/tls_probe.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <memory>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

namespace selvage::cli {
namespace {

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

int Millis(Duration duration) {
  return static_cast<int>(
      std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
}

// OK once `fd` is ready for `events`.
Status WaitReady(int fd, short events, Duration timeout) {
  pollfd polled{fd, events, 0};
  int ready = 0;
  do {
    ready = poll(&polled, 1, Millis(timeout));
  } while (ready < 0 && errno == EINTR);
  if (ready == 0) return DeadlineExceeded("no answer");
  return ready > 0 ? OkStatus() : Internal(std::strerror(errno));
}

Result<Socket> Connect(const std::string& host, const std::string& port,
                       Duration timeout) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (error != 0) {
    return Unavailable(host + ": " + gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> addresses(
      found, freeaddrinfo);
  Status last = Unavailable(host + " has no address");
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    Socket socket_(socket(at->ai_family,
                          at->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (connect(socket_.fd(), at->ai_addr, at->ai_addrlen) == 0) {
      return socket_;
    }
    if (errno != EINPROGRESS) {
      last = Unavailable(std::strerror(errno));
      continue;
    }
    const Status ready = WaitReady(socket_.fd(), POLLOUT, timeout);
    if (!ready.ok()) {
      last = ready;
      continue;
    }
    int outcome = 0;
    socklen_t size = sizeof outcome;
    getsockopt(socket_.fd(), SOL_SOCKET, SO_ERROR, &outcome, &size);
    if (outcome == 0) return socket_;
    last = Unavailable(std::strerror(outcome));
  }
  return last;
}

struct ContextFree {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
struct SslFree {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
};
struct BioFree {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
struct X509Free {
  void operator()(X509* certificate) const { X509_free(certificate); }
};
using ContextPtr = std::unique_ptr<SSL_CTX, ContextFree>;
using SslPtr = std::unique_ptr<SSL, SslFree>;
using BioPtr = std::unique_ptr<BIO, BioFree>;
using X509Ptr = std::unique_ptr<X509, X509Free>;

Result<ContextPtr> NewContext(const std::string& ca_pem, TlsVersion version) {
  ContextPtr context(SSL_CTX_new(TLS_client_method()));
  if (context == nullptr) return Internal("SSL_CTX_new failed");
  const int number =
      version == TlsVersion::kTls12 ? TLS1_2_VERSION : TLS1_3_VERSION;
  // The process may have switched TLS 1.2 off for everybody (tls_policy.h).
  SSL_CTX_clear_options(context.get(), SSL_OP_NO_TLSv1_2);
  SSL_CTX_set_min_proto_version(context.get(), number);
  SSL_CTX_set_max_proto_version(context.get(), number);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);

  const BioPtr bio(
      BIO_new_mem_buf(ca_pem.data(), static_cast<int>(ca_pem.size())));
  int count = 0;
  while (X509Ptr certificate{
      PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)}) {
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context.get()),
                        certificate.get());
    ++count;
  }
  ERR_clear_error();
  if (count == 0) return InvalidArgument("the CA file holds no certificate");
  return context;
}

Status HandshakeError(SSL* ssl) {
  const long verified = SSL_get_verify_result(ssl);
  if (verified != X509_V_OK) {
    return PermissionDenied(X509_verify_cert_error_string(verified));
  }
  const unsigned long code = ERR_get_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  ERR_clear_error();
  return FailedPrecondition(reason == nullptr ? "the connection was closed"
                                              : reason);
}

TlsPeer Describe(SSL* ssl) {
  TlsPeer peer;
  peer.protocol = SSL_get_version(ssl);
  peer.cipher = SSL_get_cipher_name(ssl);
  const X509Ptr leaf(SSL_get1_peer_certificate(ssl));
  if (leaf == nullptr) return peer;
  const BioPtr text(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(text.get(), X509_get_subject_name(leaf.get()), 0,
                     XN_FLAG_RFC2253);
  char* data = nullptr;
  const long size = BIO_get_mem_data(text.get(), &data);
  peer.subject.assign(data, static_cast<size_t>(size));
  std::tm expires{};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(leaf.get()), &expires) == 1) {
    peer.not_after = FromMicros(int64_t{timegm(&expires)} * 1'000'000);
  }
  return peer;
}

}  // namespace

Status ProbePort(const std::string& host, const std::string& port,
                 Duration timeout) {
  return Connect(host, port, timeout).status();
}

Result<TlsPeer> ProbeTls(const std::string& host, const std::string& port,
                         const std::string& ca_pem, TlsVersion version,
                         Duration timeout) {
  SELVAGE_ASSIGN_OR_RETURN(const ContextPtr context,
                           NewContext(ca_pem, version));
  SELVAGE_ASSIGN_OR_RETURN(const Socket connection,
                           Connect(host, port, timeout));
  const SslPtr ssl(SSL_new(context.get()));
  if (ssl == nullptr) return Internal("SSL_new failed");
  unsigned char address[16];
  const bool is_address = inet_pton(AF_INET, host.c_str(), address) == 1 ||
                          inet_pton(AF_INET6, host.c_str(), address) == 1;
  X509_VERIFY_PARAM* expected = SSL_get0_param(ssl.get());
  if (is_address) {
    X509_VERIFY_PARAM_set1_ip_asc(expected, host.c_str());
  } else {
    X509_VERIFY_PARAM_set1_host(expected, host.c_str(), host.size());
    SSL_set_tlsext_host_name(ssl.get(), host.c_str());
  }
  // gRPC servers insist on HTTP/2.
  static constexpr unsigned char kAlpn[] = {2, 'h', '2'};
  SSL_set_alpn_protos(ssl.get(), kAlpn, sizeof kAlpn);
  SSL_set_fd(ssl.get(), connection.fd());
  while (true) {
    ERR_clear_error();
    const int outcome = SSL_connect(ssl.get());
    if (outcome == 1) return Describe(ssl.get());
    const int error = SSL_get_error(ssl.get(), outcome);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
      SELVAGE_RETURN_IF_ERROR(
          WaitReady(connection.fd(),
                    error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, timeout));
      continue;
    }
    return HandshakeError(ssl.get());
  }
}

}  // namespace selvage::cli

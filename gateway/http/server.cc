#include "gateway/http/server.h"

#include <absl/container/flat_hash_map.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/synchronization/mutex.h>

#include <atomic>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <utility>

#include "gateway/http/connection.h"
#include "gateway/http/transport.h"
#include "proto/support/file_stamp.h"
#include "proto/support/log.h"

namespace behemoth::gateway {
namespace {

using boost::asio::ip::tcp;
using boost::system::error_code;
namespace ssl = boost::asio::ssl;

absl::StatusOr<tcp::endpoint> ParseListen(const std::string& listen, boost::asio::io_context& io) {
  const size_t colon = listen.rfind(':');
  int port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(listen.substr(colon + 1), &port) ||
      port < 0 || port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("listen: '", listen, "' is not HOST:PORT"));
  }
  std::string host = listen.substr(0, colon);
  if (host.size() > 1 && host.front() == '[') host = host.substr(1, host.size() - 2);
  if (host.empty()) host = "0.0.0.0";
  error_code error;
  tcp::resolver resolver(io);
  const auto found = resolver.resolve(host, absl::StrCat(port), tcp::resolver::passive, error);
  if (error || found.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("listen: no address for '", host, "'"));
  }
  return found.begin()->endpoint();
}

using TlsContext = std::shared_ptr<ssl::context>;  // null = plain

absl::StatusOr<TlsContext> LoadTls(const HttpServerConfig& config) {
  if (config.cert_file.empty() && config.key_file.empty()) return TlsContext();
  auto tls = std::make_shared<ssl::context>(ssl::context::tls_server);
  error_code error;
  tls->set_options(ssl::context::default_workarounds | ssl::context::no_sslv2 |
                   ssl::context::no_sslv3 | ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1);
  tls->use_certificate_chain_file(config.cert_file, error);
  if (error) return absl::InvalidArgumentError("tls-cert-file: " + error.message());
  tls->use_private_key_file(config.key_file, ssl::context::pem, error);
  if (error) return absl::InvalidArgumentError("tls-key-file: " + error.message());
  if (SSL_CTX_check_private_key(tls->native_handle()) != 1) {
    return absl::InvalidArgumentError("tls-key-file: is not the key of tls-cert-file");
  }
  return tls;
}

}  // namespace

class HttpServer::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(const HttpServerConfig& config, LoopGroup* loops, Application* application)
      : config_(config),
        limits_(config_.limits),
        loops_(loops),
        application_(application),
        acceptor_(loops->at(0).io()),
        pause_(loops->at(0).io()) {}

  absl::Status Open(const HttpServerConfig& config) {
    auto endpoint = ParseListen(config.listen, loops_->at(0).io());
    if (!endpoint.ok()) return endpoint.status();
    seen_ = {support::StampOf(config.cert_file), support::StampOf(config.key_file)};
    auto tls = LoadTls(config);
    if (!tls.ok()) return tls.status();
    tls_ = *std::move(tls);
    error_code error;
    acceptor_.open(endpoint->protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(*endpoint, error);
    if (!error) acceptor_.listen(4096, error);
    if (error) {
      return absl::UnavailableError(
          absl::StrCat("listen: cannot bind ", config.listen, ": ", error.message()));
    }
    port_ = acceptor_.local_endpoint().port();
    loops_->at(0).Post([self = shared_from_this()] { self->Accept(); });
    return absl::OkStatus();
  }

  int port() const { return port_; }

  // A pair that is half written is tried again when its other half changes.
  void ReloadTlsIfChanged() {
    if (config_.cert_file.empty()) return;
    const Stamps fresh = {support::StampOf(config_.cert_file), support::StampOf(config_.key_file)};
    if (fresh == seen_) return;
    seen_ = fresh;
    auto tls = LoadTls(config_);
    support::Log().info("certificate reloaded ok={}", tls.ok());
    if (!tls.ok()) return;
    loops_->at(0).Post(
        [self = shared_from_this(), tls = *std::move(tls)] { self->tls_ = std::move(tls); });
  }

  void RetireConnections() {
    retiring_ = true;
    ForEach([](Connection& connection) { connection.Retire(); });
  }

  void StopAccepting() {
    retiring_ = true;
    loops_->at(0).Post([self = shared_from_this()] {
      self->stopping_ = true;
      error_code ignored;
      self->acceptor_.close(ignored);
      self->pause_.cancel();
    });
    ForEach([](Connection& connection) { connection.RetireUnlessBusy(); });
  }

  bool WaitForConnections(absl::Duration timeout) {
    absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(this, &Impl::NoConnections), timeout);
  }

  void CloseAll() {
    ForEach([](Connection& connection) { connection.Close(); });
    WaitForConnections(absl::Seconds(5));
  }

 private:
  bool NoConnections() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return connections_.empty(); }

  template <typename Action>
  void ForEach(Action action) {
    absl::MutexLock lock(&mutex_);
    for (auto& [key, entry] : connections_) {
      entry.loop->Post([connection = entry.connection, action] {
        if (auto alive = connection.lock()) action(*alive);
      });
    }
  }

  void Accept() {
    if (stopping_) return;
    AsioLoop& loop = loops_->Next();
    acceptor_.async_accept(
        loop.io(), [self = shared_from_this(), &loop](error_code error, tcp::socket socket) {
          if (self->stopping_) return;
          if (error == boost::asio::error::operation_aborted) return;
          if (error) return self->PauseAccepting();  // out of descriptors: others must end first
          self->Serve(std::move(socket), loop);
          self->Accept();
        });
  }

  void PauseAccepting() {
    pause_.expires_after(std::chrono::milliseconds(50));
    pause_.async_wait([self = shared_from_this()](error_code error) {
      if (!error) self->Accept();
    });
  }

  void Serve(tcp::socket socket, AsioLoop& loop) {
    {
      absl::MutexLock lock(&mutex_);
      if (connections_.size() >= static_cast<size_t>(limits_.max_connections)) return;
    }
    error_code error;
    const auto peer = socket.remote_endpoint(error);
    if (error) return;
    socket.set_option(tcp::no_delay(true), error);
    Connection::Setup setup{
        .transport = NewTransport(std::move(socket), tls_.get()),
        .peer = absl::StrCat(peer.address().to_string(), ":", peer.port()),
        .loop = &loop,
        .application = application_,
        .limits = &limits_,
        .on_closed = [self = shared_from_this()](Connection* closed) { self->Forget(closed); }};
    loop.Post([self = shared_from_this(), &loop, setup = std::move(setup)]() mutable {
      auto connection = std::make_shared<Connection>(std::move(setup));
      self->Remember(connection, loop);
      connection->Start();
      if (self->retiring_) connection->Retire();
    });
  }

  void Remember(const std::shared_ptr<Connection>& connection, AsioLoop& loop) {
    absl::MutexLock lock(&mutex_);
    connections_[connection.get()] = {connection, &loop};
  }

  void Forget(Connection* connection) {
    absl::MutexLock lock(&mutex_);
    connections_.erase(connection);
  }

  struct Entry {
    std::weak_ptr<Connection> connection;
    AsioLoop* loop;
  };

  using Stamps = std::pair<support::FileStamp, support::FileStamp>;

  const HttpServerConfig config_;
  const HttpLimits& limits_;
  LoopGroup* const loops_;
  Application* const application_;
  Stamps seen_;     // of the certificate's files: whoever reloads
  TlsContext tls_;  // loop 0 only, like the three below; OpenSSL counts the users of its inside
  tcp::acceptor acceptor_;
  boost::asio::steady_timer pause_;
  bool stopping_ = false;
  std::atomic<bool> retiring_{false};
  int port_ = 0;
  absl::Mutex mutex_;
  absl::flat_hash_map<Connection*, Entry> connections_ ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpServerConfig& config,
                                                              LoopGroup* loops,
                                                              Application* application) {
  auto impl = std::make_shared<Impl>(config, loops, application);
  if (auto status = impl->Open(config); !status.ok()) return status;
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

HttpServer::~HttpServer() { Stop(); }
int HttpServer::port() const { return impl_->port(); }
void HttpServer::RetireConnections() { impl_->RetireConnections(); }
void HttpServer::ReloadTlsIfChanged() { impl_->ReloadTlsIfChanged(); }
void HttpServer::StopAccepting() { impl_->StopAccepting(); }
bool HttpServer::WaitForConnections(absl::Duration timeout) {
  return impl_->WaitForConnections(timeout);
}

void HttpServer::Stop() {
  impl_->StopAccepting();
  impl_->CloseAll();
}

}  // namespace behemoth::gateway

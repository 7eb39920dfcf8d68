// TLS and mTLS credentials for gRPC servers and clients, reloaded from their files when these
// change, without a restart.
#pragma once

#include <absl/status/statusor.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

namespace behemoth::support {

// All paths empty = plaintext. Flags: --tls-cert-file, --tls-key-file, --tls-client-ca-file.
struct ServerTlsConfig {
  std::string cert_file;  // PEM chain; with key_file turns TLS on
  std::string key_file;
  std::string client_ca_file;  // set = clients must show a certificate signed by it (mTLS)
};

// Flags of a client: --tls-ca-file, --tls-client-cert-file, --tls-client-key-file.
struct ClientTlsConfig {
  std::string ca_file;  // set = TLS on
  std::string cert_file;
  std::string key_file;
  // The name that the server's certificate must carry, where the address is not it. Empty = the
  // address's own host.
  std::string server_name;
};

// INVALID_ARGUMENT names the flag: half a pair, or a file that cannot be read.
absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> ServerCredentials(const ServerTlsConfig&);
absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> ClientCredentials(const ClientTlsConfig&);

}  // namespace behemoth::support

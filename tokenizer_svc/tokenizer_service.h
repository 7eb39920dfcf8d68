// proto <-> Vocabulary: checks, limits, nothing else. Thread-safe.
//
// Short texts are encoded on gRPC's thread, long ones on threads of our own (see LongCalls).
#pragma once

#include <absl/time/time.h>

#include "behemoth/tokenizer/v1/tokenizer.grpc.pb.h"
#include "tokenizer_svc/config.h"
#include "tokenizer_svc/long_calls.h"
#include "tokenizer_svc/probe.h"
#include "tokenizer_svc/vocabulary.h"

namespace behemoth::tokenizer {

class TokenizerService : public v1::TokenizerService::CallbackService {
 public:
  // Both outlive the service.
  TokenizerService(const Vocabulary& vocabulary, const Limits& limits, Probe& probe);

  grpc::ServerUnaryReactor* Encode(grpc::CallbackServerContext* context,
                                   const v1::EncodeRequest* request,
                                   v1::EncodeResponse* response) override;
  grpc::ServerUnaryReactor* GetVocabulary(grpc::CallbackServerContext* context,
                                          const v1::GetVocabularyRequest* request,
                                          v1::GetVocabularyResponse* response) override;

 private:
  absl::Status EncodeAll(grpc::CallbackServerContext& context, const v1::EncodeRequest& request,
                         v1::EncodeResponse& response);
  // Ends the call. `start` is when it came in.
  void Finish(grpc::ServerUnaryReactor& reactor, absl::Time start, const absl::Status& status,
              v1::EncodeResponse& response);

  const Vocabulary& vocabulary_;
  const Limits limits_;
  Probe& probe_;
  v1::GetVocabularyResponse vocabulary_message_;  // built once: it never changes
  LongCalls long_calls_;                          // last: its calls use all of the above
};

}  // namespace behemoth::tokenizer

// proto <-> Vocabulary: checks, limits, nothing else. Thread-safe.
#pragma once

#include "behemoth/tokenizer/v1/tokenizer.grpc.pb.h"
#include "tokenizer_svc/config.h"
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

  const Vocabulary& vocabulary_;
  const Limits limits_;
  Probe& probe_;
  v1::GetVocabularyResponse vocabulary_message_;  // built once: it never changes
};

}  // namespace behemoth::tokenizer

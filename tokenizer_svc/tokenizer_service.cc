#include "tokenizer_svc/tokenizer_service.h"

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <absl/time/clock.h>

#include <algorithm>
#include <thread>

#include "proto/support/status_convert.h"

namespace behemoth::tokenizer {
namespace {

// At least four, even on fewer cores: a long chat of one user must not wait for megabytes of
// another, and the kernel shares the cores out.
int LongCallThreads() { return std::max(4, static_cast<int>(std::thread::hardware_concurrency())); }

double SecondsSince(absl::Time start) { return absl::ToDoubleSeconds(absl::Now() - start); }

absl::Status Bad(int input, int segment, const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat("inputs[", input, "].segments[", segment, "]", what));
}

v1::GetVocabularyResponse MessageOf(const Vocabulary& vocabulary) {
  v1::GetVocabularyResponse message;
  for (const std::string& bytes : vocabulary.token_bytes()) message.add_token_bytes(bytes);
  message.mutable_control_ids()->Add(vocabulary.control_ids().begin(),
                                     vocabulary.control_ids().end());
  message.set_fingerprint(vocabulary.fingerprint());
  message.set_chat_template(vocabulary.texts().chat_template);
  message.mutable_named_chat_templates()->insert(vocabulary.texts().named_templates.begin(),
                                                 vocabulary.texts().named_templates.end());
  auto& special = *message.mutable_special_tokens();
  const SpecialIds& ids = vocabulary.special();
  const auto text = [&](uint32_t id) { return vocabulary.token_bytes()[id]; };
  if (ids.bos) special.set_bos_id(*ids.bos), special.set_bos_token(text(*ids.bos));
  if (ids.eos) special.set_eos_id(*ids.eos), special.set_eos_token(text(*ids.eos));
  if (ids.unk) special.set_unk_id(*ids.unk), special.set_unk_token(text(*ids.unk));
  if (ids.pad) special.set_pad_id(*ids.pad), special.set_pad_token(text(*ids.pad));
  return message;
}

// The bytes of text, or why they are too many.
absl::StatusOr<int64_t> CheckSize(const v1::EncodeRequest& request, const Limits& limits) {
  if (request.inputs().empty()) return absl::InvalidArgumentError("inputs: empty");
  if (request.inputs_size() > limits.max_inputs) {
    return absl::ResourceExhaustedError(
        absl::StrCat("inputs: ", request.inputs_size(), " are more than ", limits.max_inputs));
  }
  int64_t segments = 0;
  int64_t bytes = 0;
  for (const auto& input : request.inputs()) {
    segments += input.segments_size();
    for (const auto& segment : input.segments()) {
      bytes += static_cast<int64_t>(segment.text().size() + segment.marked_text().size());
    }
  }
  if (segments > limits.max_segments) {
    return absl::ResourceExhaustedError(
        absl::StrCat("inputs: ", segments, " segments are more than ", limits.max_segments));
  }
  if (bytes > limits.max_text_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("inputs: ", bytes, " bytes of text are more than ", limits.max_text_bytes));
  }
  return bytes;
}

absl::StatusOr<std::vector<Segment>> SegmentsOf(const v1::EncodeRequest& request, int index,
                                                const Vocabulary& vocabulary) {
  const auto& input = request.inputs(index);
  std::vector<Segment> segments;
  segments.reserve(static_cast<size_t>(input.segments_size()));
  for (int i = 0; i < input.segments_size(); ++i) {
    const auto& segment = input.segments(i);
    switch (segment.kind_case()) {
      case v1::Segment::kText:
        segments.push_back({.kind = Segment::Kind::kText, .text = segment.text()});
        break;
      case v1::Segment::kMarkedText:
        segments.push_back({.kind = Segment::Kind::kMarked, .text = segment.marked_text()});
        break;
      case v1::Segment::kControlId:
        if (!vocabulary.IsControl(segment.control_id())) {
          return Bad(index, i,
                     absl::StrCat(".control_id: ", segment.control_id(), " is no control token"));
        }
        segments.push_back({.kind = Segment::Kind::kControl, .control_id = segment.control_id()});
        break;
      case v1::Segment::KIND_NOT_SET:
        return Bad(index, i, ": no kind is set");
    }
  }
  return segments;
}

}  // namespace

TokenizerService::TokenizerService(const Vocabulary& vocabulary, const Limits& limits, Probe& probe)
    : vocabulary_(vocabulary),
      limits_(limits),
      probe_(probe),
      vocabulary_message_(MessageOf(vocabulary)),
      long_calls_(LongCallThreads(), static_cast<size_t>(limits.max_waiting_long_calls)) {}

absl::Status TokenizerService::EncodeAll(grpc::CallbackServerContext& context,
                                         const v1::EncodeRequest& request,
                                         v1::EncodeResponse& response) {
  size_t bytes = 0;
  size_t tokens = 0;
  for (int i = 0; i < request.inputs_size(); ++i) {
    if (context.IsCancelled()) return absl::CancelledError("the caller is gone");
    const auto segments = SegmentsOf(request, i, vocabulary_);
    if (!segments.ok()) return segments.status();
    const auto ids =
        vocabulary_.encoder().Encode(*segments, request.inputs(i).add_special_tokens());
    response.add_encodings()->mutable_ids()->Add(ids.begin(), ids.end());
    for (const Segment& segment : *segments) bytes += segment.text.size();
    tokens += ids.size();
  }
  response.set_fingerprint(vocabulary_.fingerprint());
  probe_.OnEncoded(bytes, tokens);
  return absl::OkStatus();
}

void TokenizerService::Finish(grpc::ServerUnaryReactor& reactor, absl::Time start,
                              const absl::Status& status, v1::EncodeResponse& response) {
  if (!status.ok()) response.Clear();
  probe_.OnEncode(status.raw_code(), SecondsSince(start));
  reactor.Finish(support::ToGrpc(status));
}

grpc::ServerUnaryReactor* TokenizerService::Encode(grpc::CallbackServerContext* context,
                                                   const v1::EncodeRequest* request,
                                                   v1::EncodeResponse* response) {
  const absl::Time start = absl::Now();
  auto* reactor = context->DefaultReactor();
  const auto bytes = CheckSize(*request, limits_);
  if (!bytes.ok()) {
    Finish(*reactor, start, bytes.status(), *response);
    return reactor;
  }
  if (*bytes <= limits_.short_text_bytes) {
    Finish(*reactor, start, EncodeAll(*context, *request, *response), *response);
    return reactor;
  }
  probe_.OnLongCall();
  const auto encode_long = [=, this] {
    const absl::Status status = EncodeAll(*context, *request, *response);
    probe_.OnLongCallEnd();
    Finish(*reactor, start, status, *response);
  };
  if (!long_calls_.TryRun(encode_long)) {
    probe_.OnLongCallEnd();
    Finish(*reactor, start, absl::ResourceExhaustedError("inputs: too many long texts wait"),
           *response);
  }
  return reactor;
}

grpc::ServerUnaryReactor* TokenizerService::GetVocabulary(grpc::CallbackServerContext* context,
                                                          const v1::GetVocabularyRequest*,
                                                          v1::GetVocabularyResponse* response) {
  const absl::Time start = absl::Now();
  *response = vocabulary_message_;
  probe_.OnVocabulary(SecondsSince(start));
  auto* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace behemoth::tokenizer

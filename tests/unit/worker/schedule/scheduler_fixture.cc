#include "tests/unit/worker/schedule/scheduler_fixture.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

namespace behemoth::worker {
namespace {

SchedulerConfig ConfigOf(const SchedulerFixture::Options& options) {
  const int32_t all = options.blocks * options.tokens_per_block;
  return {.context_tokens = options.context_tokens > 0 ? options.context_tokens : all,
          .blocks = options.blocks,
          .tokens_per_block = options.tokens_per_block,
          .max_sequences = options.max_sequences,
          .max_step_tokens = options.max_step_tokens,
          .pipeline_depth = options.pipeline_depth,
          .token_multiple = options.token_multiple,
          .prefix_caching = options.prefix_caching,
          .itl_target = options.itl_target,
          .progress_interval = options.progress_interval,
          .cache_secret = 7};
}

}  // namespace

std::vector<TokenId> PromptOf(int32_t count, int32_t seed) {
  std::vector<TokenId> tokens;
  for (int32_t i = 0; i < count; ++i) tokens.push_back(100 + seed % 800);
  return tokens;
}

SchedulerFixture::SchedulerFixture(const Options& options)
    : scheduler_(ConfigOf(options), &observer_),
      runner_(options.blocks, options.tokens_per_block, options.max_sequences) {}

std::string SchedulerFixture::Submit(const Ask& ask) {
  GenerationRequest request;
  request.request_id = absl::StrCat("r", ++submitted_);
  request.prompt = ask.prompt.empty() ? PromptOf(ask.prompt_tokens, submitted_) : ask.prompt;
  request.sampling.seed = static_cast<uint64_t>(submitted_);
  request.sampling.stop_ids = ask.stop_ids;
  request.sampling.min_tokens = ask.min_tokens;
  request.sampling.top_logprobs = ask.top_logprobs;
  request.max_tokens = ask.max_new_tokens;
  request.num_sequences = ask.num_sequences;
  request.include_stop_id = ask.include_stop_id;
  request.prompt_logprobs = ask.prompt_logprobs;
  request.cache_salt = ask.salt;
  request.fairness_key = ask.key;
  request.priority = ask.priority;
  request.deadline = ask.deadline;
  SubmitRequest(request);
  return request.request_id;
}

void SchedulerFixture::SubmitRequest(GenerationRequest request) {
  Heard& heard = heard_[request.request_id];
  heard = {};
  heard.tokens.resize(static_cast<size_t>(request.num_sequences));
  heard.logprobs.resize(heard.tokens.size());
  heard.finishes.resize(heard.tokens.size());
  requests_[request.request_id] = request;
  scheduler_.Submit(std::move(request), now);
  Drain();
}

bool SchedulerFixture::Plan() {
  scheduler_.OpenMasks();  // nobody is patient here
  const StepPlan& plan = scheduler_.PlanStep(now);
  Drain();
  if (plan.rows.empty()) return false;
  last_plan_ = plan;
  results_.push_back(runner_.Run(plan));
  runs_late_.push_back(plan.late_masks);
  return true;
}

void SchedulerFixture::Commit() {
  now += step_time;
  // What a device does in front of its samples.
  Expect(!runs_late_.front() || runs_late_.front()->is_open(), "a step ended without its masks",
         "");
  runs_late_.pop_front();
  scheduler_.Commit(results_.front(), now);
  results_.pop_front();
  Drain();
}

bool SchedulerFixture::Step() {
  const size_t depth = static_cast<size_t>(scheduler_.config().pipeline_depth);
  while (results_.size() < depth && Plan()) {
  }
  if (results_.empty()) return false;
  Commit();
  return true;
}

void SchedulerFixture::RunUntilIdle() {
  // A bound, so that a livelock fails instead of hanging.
  for (int step = 0; step < 100'000 && breach().empty(); ++step) {
    if (!Step()) return;
  }
  if (breach().empty()) breach_ = "no end after 100,000 steps";
}

void SchedulerFixture::Expect(bool condition, std::string_view what, const std::string& id) {
  if (!condition && breach_.empty()) breach_ = id + ": " + std::string(what);
}

void SchedulerFixture::Drain() {
  for (Delivery& delivery : scheduler_.deliveries()) {
    const std::string& id = delivery.request->spec.request_id;
    Heard& heard = heard_.at(id);
    Expect(!heard.closed, "something came after Close", id);
    if (absl::Status* status = std::get_if<absl::Status>(&delivery.what)) {
      heard.closed = *status;
      const bool all_finished = std::all_of(heard.finishes.begin(), heard.finishes.end(),
                                            [](const auto& finish) { return finish.has_value(); });
      Expect(!status->ok() || all_finished, "closed OK before every finish", id);
    } else {
      Hear(id, std::move(std::get<TokenEvent>(delivery.what)));
    }
  }
  scheduler_.deliveries().clear();
}

void SchedulerFixture::Hear(const std::string& id, TokenEvent event) {
  Heard& heard = heard_.at(id);
  if (auto* progress = std::get_if<ProgressEvent>(&event)) {
    heard.progress.push_back(*progress);
  } else if (auto* finish = std::get_if<FinishEvent>(&event)) {
    std::optional<FinishEvent>& known = heard.finishes[static_cast<size_t>(finish->sequence)];
    Expect(!known, "finished twice", id);
    known = *finish;
  } else if (const auto* rewound = std::get_if<RewoundEvent>(&event)) {
    const size_t index = static_cast<size_t>(rewound->sequence);
    const size_t keep = static_cast<size_t>(rewound->keep_tokens);
    // One more than was heard: a stop id that is not part of the output.
    Expect(keep <= heard.tokens[index].size() + 1, "more tokens kept than there were", id);
    heard.tokens[index].resize(std::min(keep, heard.tokens[index].size()));
    heard.logprobs[index].resize(std::min(heard.logprobs[index].size(), keep));
    heard.finishes[index].reset();
  } else {
    auto& tokens = std::get<TokensEvent>(event);
    const size_t index = static_cast<size_t>(tokens.sequence);
    Expect(!heard.finishes[index], "tokens after the finish", id);
    Expect(tokens.logprobs.empty() || tokens.logprobs.size() == tokens.ids.size(),
           "one logprob per id", id);
    heard.tokens[index].insert(heard.tokens[index].end(), tokens.ids.begin(), tokens.ids.end());
    heard.logprobs[index].insert(heard.logprobs[index].end(), tokens.logprobs.begin(),
                                 tokens.logprobs.end());
    if (!tokens.prompt_logprobs.empty()) {
      Expect(heard.prompt_logprobs.empty(), "prompt logprobs come once", id);
      heard.prompt_logprobs = std::move(tokens.prompt_logprobs);
    }
  }
}

const std::vector<TokenId>& SchedulerFixture::TokensOf(const std::string& id,
                                                       int32_t sequence) const {
  return heard(id).tokens[static_cast<size_t>(sequence)];
}

std::vector<TokenId> SchedulerFixture::TokensWhenAlone(const std::string& id,
                                                       int32_t sequence) const {
  return RunAlone(request(id), sequence).tokens;
}

absl::Status SchedulerFixture::StatusOf(const std::string& id) const {
  return heard(id).closed.value_or(absl::UnknownError("not closed"));
}

FinishEvent SchedulerFixture::FinishOf(const std::string& id, int32_t sequence) const {
  return heard(id).finishes[static_cast<size_t>(sequence)].value_or(
      FinishEvent{.sequence = -1, .completion_tokens = -1});
}

}  // namespace behemoth::worker

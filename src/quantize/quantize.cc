#include "quantize/quantize.h"

#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/log.h"
#include "quantize/exporter.h"
#include "quantize/modules.h"
#include "quantize/output_folder.h"
#include "quantize/report.h"
#include "quantize/sensitivity.h"

namespace tandem::quantize {
namespace {

namespace fs = std::filesystem;

// One model on its way through the command.
struct Job {
  const io::Checkpoint* checkpoint = nullptr;
  bool is_assistant = false;
  std::set<std::string> excluded;
  std::optional<CalibrationObserver> observer;
  std::optional<OutputFolder> folder;
  ModelResult result;
};

base::Result<Job> make_job(const io::Checkpoint& checkpoint, const fs::path& out,
                           const QuantizeOptions& options, bool is_assistant) {
  Job job;
  job.checkpoint = &checkpoint;
  job.is_assistant = is_assistant;
  job.result.out = out;
  job.observer.emplace(is_assistant ? "assistant" : "target",
                       options.scales.kv_fp8 && !is_assistant);
  TANDEM_RETURN_IF_ERROR(require_bf16(checkpoint));
  return job;
}

// Engines that fuse q, k, v or gate, up want one precision for all of a group.
void warn_of_mixed_groups(const Job& job) {
  for (const auto& group : fused_groups(quantizable_modules(*job.checkpoint))) {
    const auto count = std::ranges::count_if(
        group, [&](const std::string& module) { return job.excluded.contains(module); });
    if (count != 0 && count != static_cast<int64_t>(group.size()))
      base::log_warning(
          "{}: BF16 and FP8 are mixed among projections that other engines fuse; exclude all of "
          "{} to {} for them",
          job.checkpoint->dir().string(), group.front(), group.back());
  }
}

// A pattern may name modules of either model, but must name some.
base::Status apply_patterns(const QuantizeOptions& options, std::vector<Job>& jobs) {
  for (const std::string& pattern : options.exclude) {
    base::Error error;
    bool found = false;
    for (Job& job : jobs) {
      auto selected = select_modules({pattern}, quantizable_modules(*job.checkpoint), "--exclude");
      if (!selected) {
        error = selected.error();
        continue;
      }
      found = true;
      job.excluded.insert(selected->begin(), selected->end());
    }
    if (!found) return tl::unexpected<base::Error>(error);
  }
  for (const Job& job : jobs) warn_of_mixed_groups(job);
  return {};
}

base::Result<std::vector<Job>> make_jobs(const model::Pair& pair, const QuantizeOptions& options) {
  std::vector<Job> jobs;
  if (options.out_target) {
    TANDEM_ASSIGN_OR_RETURN(Job job,
                            make_job(*pair.target_checkpoint, *options.out_target, options, false));
    jobs.push_back(std::move(job));
  }
  if (options.out_assistant) {
    TANDEM_ASSIGN_OR_RETURN(
        Job job, make_job(*pair.assistant_checkpoint, *options.out_assistant, options, true));
    jobs.push_back(std::move(job));
  }
  TANDEM_RETURN_IF_ERROR(apply_patterns(options, jobs));
  return jobs;
}

base::Result<CalibrationRun> run_calibration(const ops::Context& context, model::Pair& pair,
                                             const std::vector<std::vector<int32_t>>& prompts,
                                             const QuantizeOptions& options,
                                             const Progress& progress, std::vector<Job>& jobs) {
  CalibrationObserver* observers[2] = {nullptr, nullptr};
  for (Job& job : jobs) {
    observers[job.is_assistant ? 1 : 0] = &*job.observer;
    if (options.scales.method == ScaleMethod::kMse)
      TANDEM_RETURN_IF_ERROR(
          weigh_channels(*job.checkpoint, *context.pool, progress, *job.observer));
  }
  return calibrate(context, pair, prompts, options.calibration, observers[0], observers[1],
                   progress);
}

base::Status choose_exclusions(const ops::Context& context, model::Pair& pair,
                               const CalibrationRun& calibration, const QuantizeOptions& options,
                               const Progress& progress, Job& job) {
  if (!options.auto_exclude) return {};
  const double budget = *options.auto_exclude;
  ModelPlan& plan = job.result.plan;
  TANDEM_ASSIGN_OR_RETURN(
      job.result.auto_exclusion,
      job.is_assistant
          ? auto_exclude_assistant(context, pair, calibration, plan,
                                   options.calibration.num_draft_tokens, budget, progress)
          : auto_exclude_target(context, pair, calibration, plan, budget, progress));
  for (const GroupCost& group : job.result.auto_exclusion->excluded)
    for (const std::string& module : group.modules) {
      plan.quantized.erase(module);
      plan.excluded.insert(module);
    }
  return {};
}

// Nobody wants to learn after the calibration that the disk is too small; both may be on one.
base::Status check_space(const std::vector<Job>& jobs) {
  std::map<dev_t, uint64_t> needed;
  for (const Job& job : jobs) {
    struct stat info = {};
    if (::stat(job.folder->dir().c_str(), &info) != 0) continue;
    const auto bytes = static_cast<uint64_t>(job.result.bytes);
    const uint64_t total = needed[info.st_dev] += bytes;
    std::error_code error;
    const fs::space_info space = fs::space(job.folder->dir(), error);
    if (error || space.available >= total) continue;
    return base::make_error(
        base::ErrorCode::kResourceExhausted,
        fmt::format("{}: expected {} bytes of free space for {}, got {}", job.result.out.string(),
                    total, total == bytes ? "the quantized model" : "both quantized models",
                    space.available));
  }
  return {};
}

// The plan with nothing measured: which modules, and so how many bytes.
void sketch_plan(const QuantizeOptions& options, Job& job) {
  job.result.plan.options = options.scales;
  job.result.plan.excluded = job.excluded;
  for (const std::string& module : quantizable_modules(*job.checkpoint))
    if (!job.excluded.contains(module)) job.result.plan.quantized.emplace(module, ModuleScales{});
  if (options.scales.kv_fp8 && !job.is_assistant)
    job.result.plan.kv.resize(static_cast<size_t>(job.checkpoint->config().text.num_layers()));
  job.result.exclusions = exported_exclusions(*job.checkpoint, job.result.plan);
  job.result.bytes = exported_bytes(*job.checkpoint, job.result.plan);
}

base::Status write_model(const ops::Context& context, const CalibrationRun& calibration,
                         const QuantizeOptions& options, const Progress& progress, Job& job) {
  ModelResult& result = job.result;
  result.exclusions = exported_exclusions(*job.checkpoint, result.plan);
  result.bytes = exported_bytes(*job.checkpoint, result.plan);
  const std::string report =
      report_json(options, calibration, result.plan, result.auto_exclusion, job.is_assistant);
  return export_model(*job.checkpoint, result.plan, report, options.max_shard_bytes, *context.pool,
                      progress, *job.folder);
}

void keep(std::vector<Job>& jobs, QuantizeResult& result) {
  for (Job& job : jobs)
    (job.is_assistant ? result.assistant : result.target) = std::move(job.result);
}

bool is_inside(const fs::path& path, const fs::path& folder) {
  std::error_code error;
  const fs::path inner = fs::weakly_canonical(path, error);
  const fs::path outer = fs::weakly_canonical(folder, error);
  const auto [end, unused] = std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end());
  return end == outer.end();
}

bool overlap(const fs::path& a, const fs::path& b) {
  return is_inside(a, b) || is_inside(b, a);
}

// A run empties, renames and removes folders of these names: no two outputs may share one, and no
// source may be one.
base::Status check_folders(const QuantizeOptions& options, const model::Pair& pair) {
  if (options.out_target && options.out_assistant)
    for (const fs::path& ours : OutputFolder::names(*options.out_target))
      for (const fs::path& theirs : OutputFolder::names(*options.out_assistant))
        if (overlap(ours, theirs))
          return base::invalid(
              "--out-assistant: expected another folder than --out-target, its .partial and its "
              ".replaced, got {}",
              options.out_assistant->string());
  for (const auto& out : {options.out_target, options.out_assistant})
    for (const auto& source : {pair.target_checkpoint, pair.assistant_checkpoint}) {
      if (!out || !source) continue;
      if (overlap(*out, source->dir()))
        return base::invalid("{}: expected an output outside of the source {}, got a folder of it",
                             out->string(), source->dir().string());
      for (const fs::path& name : OutputFolder::names(*out))
        if (overlap(name, source->dir()))
          return base::invalid(
              "{}: expected an output that leaves the source {} alone, got one that takes {} while "
              "it is made; choose another name",
              out->string(), source->dir().string(), name.string());
    }
  return {};
}

}  // namespace

base::Status check_options(const QuantizeOptions& options, const model::Pair& pair) {
  if (!options.out_target && !options.out_assistant)
    return base::invalid(
        "quantize: expected --out-target, --out-assistant or both, got neither: nothing to write");
  if (options.out_assistant && !pair.assistant_checkpoint)
    return base::invalid(
        "--out-assistant: expected --assistant with the BF16 assistant as well, got none");
  if (options.scales.kv_fp8 && !options.out_target)
    return base::invalid(
        "--kv-cache-dtype fp8: expected --out-target (an assistant has no KV of its own and takes "
        "the target's scales), got none");
  return check_folders(options, pair);
}

base::Result<QuantizeResult> quantize_pair(const ops::Context& context, model::Pair pair,
                                           const std::vector<std::vector<int32_t>>& prompts,
                                           const QuantizeOptions& options,
                                           const Progress& progress) {
  TANDEM_RETURN_IF_ERROR(check_options(options, pair));
  TANDEM_ASSIGN_OR_RETURN(std::vector<Job> jobs, make_jobs(pair, options));
  for (Job& job : jobs) {
    TANDEM_ASSIGN_OR_RETURN(job.folder, OutputFolder::create(job.result.out, options.force));
    sketch_plan(options, job);
  }
  TANDEM_RETURN_IF_ERROR(check_space(jobs));
  QuantizeResult result;
  TANDEM_ASSIGN_OR_RETURN(result.calibration,
                          run_calibration(context, pair, prompts, options, progress, jobs));
  for (Job& job : jobs) {
    TANDEM_ASSIGN_OR_RETURN(
        job.result.plan, plan_scales(*job.checkpoint, *job.observer, job.excluded, options.scales,
                                     *context.pool, progress));
    TANDEM_RETURN_IF_ERROR(
        choose_exclusions(context, pair, result.calibration, options, progress, job));
  }
  pair.assistant.reset();  // their activation buffers are not needed any more
  pair.target.reset();
  for (Job& job : jobs)
    TANDEM_RETURN_IF_ERROR(write_model(context, result.calibration, options, progress, job));
  for (Job& job : jobs) TANDEM_RETURN_IF_ERROR(job.folder->publish());
  keep(jobs, result);
  return result;
}

base::Result<QuantizeResult> dry_run(const model::Pair& pair, const QuantizeOptions& options) {
  TANDEM_RETURN_IF_ERROR(check_options(options, pair));
  TANDEM_ASSIGN_OR_RETURN(std::vector<Job> jobs, make_jobs(pair, options));
  for (Job& job : jobs) sketch_plan(options, job);
  QuantizeResult result;
  keep(jobs, result);
  return result;
}

}  // namespace tandem::quantize

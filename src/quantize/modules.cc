#include "quantize/modules.h"

#include <algorithm>

#include "io/module_patterns.h"

namespace tandem::quantize {
namespace {

bool any_starts_with(const std::vector<std::string>& names, const std::string& prefix) {
  return std::ranges::any_of(names,
                             [&](const std::string& name) { return name.starts_with(prefix); });
}

// The shortest entry that covers `name` and no quantized module. Some readers also take an entry as
// plain text that may occur anywhere, so "layers.1" must not stand alone beside "layers.1.*": it
// occurs in "layers.10".
std::string shortened(const std::string& name, const std::vector<std::string>& quantized) {
  for (size_t dot = name.find('.'); dot != std::string::npos; dot = name.find('.', dot + 1)) {
    const std::string prefix = name.substr(0, dot);
    if (!any_starts_with(quantized, prefix)) return prefix + "*";
    if (!any_starts_with(quantized, prefix + ".")) return prefix + ".*";
  }
  return name;
}

}  // namespace

bool always_bf16(std::string_view canonical_module) {
  return canonical_module == "pre_projection" || canonical_module == "post_projection" ||
         canonical_module == "lm_head";
}

std::vector<std::string> quantizable_modules(const io::Checkpoint& checkpoint) {
  std::vector<std::string> modules = checkpoint.linear_modules();
  std::erase_if(modules, [](const std::string& module) { return always_bf16(module); });
  return modules;
}

std::string shared_input(std::string_view canonical_module) {
  const size_t dot = canonical_module.rfind('.');
  const std::string_view name = canonical_module.substr(dot + 1);
  const std::string prefix(canonical_module.substr(0, dot + 1));
  if (name == "k_proj" || name == "v_proj") return prefix + "q_proj";
  if (name == "up_proj") return prefix + "gate_proj";
  return std::string(canonical_module);
}

std::vector<std::vector<std::string>> fused_groups(const std::vector<std::string>& modules) {
  std::vector<std::vector<std::string>> groups;
  for (const std::string& module : modules) {
    const auto same = std::ranges::find_if(groups, [&](const std::vector<std::string>& group) {
      return shared_input(group.front()) == shared_input(module);
    });
    if (same != groups.end())
      same->push_back(module);
    else
      groups.push_back({module});
  }
  return groups;
}

base::Result<std::set<std::string>> select_modules(const std::vector<std::string>& patterns,
                                                   const std::vector<std::string>& modules,
                                                   const std::string& where) {
  std::set<std::string> selected;
  for (const std::string& pattern : patterns) {
    const auto entry = io::ModulePatterns::modelopt({pattern});
    size_t found = 0;
    for (const std::string& module : modules) {
      if (pattern.empty() || !entry.matches(module)) continue;
      selected.insert(module);
      ++found;
    }
    if (found == 0)
      return base::invalid(
          "{}: expected a module such as {} or a pattern such as *.down_proj, got \"{}\", which "
          "names none",
          where, modules.empty() ? "layers.0.mlp.up_proj" : modules.back(), pattern);
  }
  return selected;
}

std::vector<std::string> exclusion_list(const std::vector<std::string>& unquantized,
                                        const std::vector<std::string>& quantized) {
  std::set<std::string> entries;
  for (const std::string& name : unquantized) entries.insert(shortened(name, quantized));
  return {entries.begin(), entries.end()};
}

}  // namespace tandem::quantize

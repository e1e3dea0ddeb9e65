// Who computes what: replicas side by side where there are enough, and the whole team on one network for what is left over.
// SPDX-License-Identifier: BSD-3-Clause
#include "run.hpp"

#include <math.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <string>

#include "network.hpp"
#include "pool.hpp"

namespace pykernel {
namespace {

void require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}
void finite(const double* x, int64_t n, const char* what) {
  for (int64_t i = 0; x && i < n; i++)
    if (!isfinite(x[i])) throw std::invalid_argument(std::string(what) + " must be finite");
}

void known(const char* distribution, double parameter) {
  for (const char* name : {"given", "identity", "constant", "haar"})
    if (!strcmp(name, distribution)) return;
  check_parameter(distribution_called(distribution), parameter);
}

// multiply-adds of the largest layer: below this a network is not worth a team
constexpr double worth_a_team = 1 << 18;
// and of a whole call: below this it is over before another thread is awake
constexpr double worth_a_thread = 1 << 17;

// At least so many for a layer whatever its engine: 2 us, and what a unit and input costs outside dense products
double least_work(const Plan& plan, int64_t l) {
  const double units = (double)std::max(plan.widths[l], plan.widths[l - 1]), B = (double)plan.batch;
  return std::max(2048.0, units * B * (64 + 4 * B));
}

}  // namespace

void check(const Plan& plan) {
  require(plan.depth >= 1 && plan.depth < (1 << 24) - 1, "depth must be at least 1 and below 2^24 - 1");
  require(plan.batch >= 1 && plan.batch < (int64_t)1 << 31, "batch must be at least 1 and below 2^31");
  require(plan.widths && plan.scale && plan.residual_scale && plan.bias_scale,
          "widths, scale, residual_scale and bias_scale must be given");
  const auto size = [&](int64_t a, int64_t b) {
    int64_t bytes;
    require(!__builtin_mul_overflow(a, b, &bytes) && !__builtin_mul_overflow(bytes, (int64_t)16, &bytes), "widths and batch are too large");
    return a * b;
  };
  for (int64_t l = 0; l <= plan.depth; l++) {
    require(plan.widths[l] >= 1 && plan.widths[l] < (int64_t)1 << 32, "widths must be at least 1 and below 2^32");
    size(padded(plan.widths[l]), plan.batch);
    require(!l || ((!plan.weights || plan.weights[l - 1]) && (!plan.biases || plan.biases[l - 1])),
            "weights and biases must be given for every layer");
    if (plan.weights && l) finite(plan.weights[l - 1], size(plan.widths[l], plan.widths[l - 1]), "weights");
    if (plan.biases && l) finite(plan.biases[l - 1], plan.widths[l], "biases");
  }
  require(plan.activation.name && plan.distribution && plan.bias_distribution && (plan.loss <= no_loss || plan.head_distribution),
          "activation, distribution, bias_distribution and head_distribution must be given");
  known(plan.distribution, plan.distribution_parameter);
  if (plan.loss > no_loss) {
    require(!strcmp(plan.head_distribution, "given") == (plan.head_weight != nullptr),
            "head_weight must be given with head_distribution \"given\", and only then");
    known(plan.head_distribution, plan.head_parameter);
    finite(&plan.head_scale, 1, "head_scale");
  }
  const ActivationRow& f = plan.activation;
  require(isfinite(f.left) && isfinite(f.right) && isfinite(f.before_zero) && isfinite(f.after_zero) && isfinite(f.at_zero) &&
              isfinite(f.max_slope),
          "the activation's slopes and value at zero must be finite");
  require(!strcmp(plan.distribution, "given") == (plan.weights != nullptr),
          "weights must be given with distribution \"given\", and only then");
  require(!strcmp(plan.bias_distribution, "zero") || !strcmp(plan.bias_distribution, "normal") ||
              !strcmp(plan.bias_distribution, "uniform") || !strcmp(plan.bias_distribution, "given"),
          "bias_distribution must be \"zero\", \"normal\", \"uniform\" or \"given\"");
  require(!strcmp(plan.bias_distribution, "given") == (plan.biases != nullptr),
          "biases must be given with bias_distribution \"given\", and only then");
  require(plan.norm >= no_norm && plan.norm <= rms_norm, "norm must be 0 to 3");
  require(plan.norm_eps >= 1e-30 && plan.norm_eps <= 1e30, "norm_eps must be from 1e-30 to 1e30");
  require(plan.order == linear_norm_activation || plan.order == norm_activation_linear, "order must be 0 or 1");
  require(plan.loss >= no_loss && plan.loss <= linear_loss, "loss must be 0 to 4");
  require(plan.loss ? plan.outputs >= 1 && plan.outputs < (int64_t)1 << 32 : true, "outputs must be at least 1 and below 2^32");
  if (plan.loss) {
    finite(plan.targets, size(plan.outputs, plan.batch), "targets");
    finite(plan.head_weight, size(plan.outputs, plan.widths[plan.depth]), "head_weight");
    finite(plan.head_bias, plan.outputs, "head_bias");
  }
  require(plan.residual_every >= 0, "residual_every must not be negative");
  for (int64_t k = plan.residual_every, l = k; k && l <= plan.depth; l += k)
    require(plan.widths[l] == plan.widths[l - k], "layers joined by a residual must have the same width");
  require(plan.correlation >= 0 && plan.correlation <= 1, "correlation must be within 0 and 1");
  require(plan.clip_value >= 0, "clip_value must not be negative");
  finite(plan.scale, plan.depth, "scale");
  finite(plan.bias_scale, plan.depth, "bias_scale");
  finite(plan.residual_scale, plan.depth, "residual_scale");
  finite(plan.x, plan.x ? plan.widths[0] * plan.batch : 0, "x");
  finite(plan.cotangent, plan.cotangent ? plan.widths[plan.depth] * plan.batch : 0, "cotangent");
}

template <class T> void run(const Plan& plan, const Run& how, const MakeLinear<T>& make, const Rows& rows) {
  check(plan);
  require(how.threads >= 1 && how.count >= 0 && how.first >= 0, "threads must be positive, first and count must not be negative");
  if (how.count == 0) return;
  // Workers side by side as far as the least that each needs fits.
  std::vector<std::unique_ptr<Linear<T>>> linears;
  linears.push_back(make(plan, how.threads));
  double work = 0, total = 0;
  for (int64_t l = 1; l <= plan.depth; l++) {
    const double layer = linears[0]->work(plan, l);
    work = std::max(work, layer), total += (double)how.count * std::max(layer, least_work(plan, l));
  }
  const bool brief = total < worth_a_thread;
  const bool team_pays = how.threads > 1 && work >= worth_a_team;
  const int64_t least = least_bytes(plan, plan.clip_value > 0 || linears[0]->needs_input() ? 2 : 1, sizeof(T));
  const int64_t fit = std::max<int64_t>(1, how.memory / std::max<int64_t>(1, least));
  int64_t workers = brief ? 1 : std::min<int64_t>({how.threads, how.count, fit});
  // With too few for all threads, or a few left over at the end, one network gets the whole team.
  int64_t alone = 0;
  if (team_pays) alone = workers < how.threads ? how.count : how.count % workers;
  if (alone == how.count) workers = 1;
  if (workers < how.threads) linears.clear();  // each of fewer workers may take more

  std::atomic<bool> stop{false};
  std::vector<std::unique_ptr<Team>> teams;
  std::vector<std::unique_ptr<Network<T>>> networks;
  const auto add = [&](int size) {
    if (linears.size() == teams.size()) linears.push_back(make(plan, (int)workers));
    teams.push_back(std::make_unique<Team>(size, stop));
    networks.emplace_back();
  };
  for (int64_t w = 0; w < workers; w++) add(alone == how.count ? how.threads : 1);

  const auto replica = [&](size_t w, int64_t r) {
    if (linears[w]->alone(how.first + r, rows, r, *teams[w])) return;
    if (!networks[w]) networks[w] = std::make_unique<Network<T>>(plan, *linears[w], *teams[w], how.memory / workers);
    networks[w]->replica(how.first + r, rows, r);
  };

  const auto guarded = [&](const std::function<void(int)>& body) {
    return [&stop, body](int worker) {
      try {
        body(worker);
      } catch (const Stopped&) {  // whoever stopped the run says why
      } catch (...) {
        stop = true;
        throw;
      }
    };
  };
  const auto poll = [&] {
    try {
      if (how.poll) how.poll();
    } catch (...) {
      stop = true;
      throw;
    }
  };
  if (brief) {
    for (int64_t r = 0; r < how.count; r++) replica(0, r);
    return;
  }
  std::atomic<int64_t> next{0};
  if (const int64_t together = how.count - alone)
    run_on_threads((int)workers, guarded([&](int worker) {
                     for (int64_t r; (r = next.fetch_add(1)) < together;) replica((size_t)worker, r);
                   }),
                   poll);
  if (alone) {
    if (alone < how.count) {  // the first worker's memory is given back before the team's network is made
      networks.clear(), teams.clear(), linears.clear();
      workers = 1;
      add(how.threads);
    }
    Team& team = *teams[0];
    run_on_threads(how.threads, guarded([&](int worker) {
                     if (worker) return team.serve();
                     try {
                       for (int64_t r = how.count - alone; r < how.count; r++) replica(0, r);
                     } catch (...) {
                       team.close();
                       throw;
                     }
                     team.close();
                   }),
                   poll);
  }
}
template void run(const Plan&, const Run&, const MakeLinear<float>&, const Rows&);
template void run(const Plan&, const Run&, const MakeLinear<double>&, const Rows&);

}  // namespace pykernel

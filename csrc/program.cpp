// What follows from the order of ops.
// SPDX-License-Identifier: BSD-3-Clause
#include "pykernel/program.hpp"

#include "ops/ops.hpp"

namespace pykernel {

Counts add_stretch(Stretch& stretch, Op* ops, int64_t op_count, int64_t count, const Counts& first) {
  Counts each = {}, after = first;
  for (int64_t j = 0; j < op_count; j++) ops[j].at = each.of[(int)facts_of(ops[j].kind).table]++;
  stretch = {ops, op_count, count, first, each};
  for (int t = 0; t < table_count; t++) after.of[t] += count * each.of[t];
  return after;
}

void find_centred(const Program& p, bool* out) {
  const auto norm_of = [&](const Op& op, int64_t number) {
    if (op.kind == OpKind::norm) return p.norms[p.norm_steps[number]].kind;
    return op.kind == OpKind::phi ? p.norms[p.step_norm[number]].kind : (int)no_norm;
  };
  for (int64_t s = 0; s < p.stretch_count; s++) {
    const Stretch& stretch = p.stretches[s];
    for (int64_t j = 0; j < stretch.op_count; j++) {
      if (stretch.ops[j].kind != OpKind::linear) continue;
      const Op* next =
          j + 1 < stretch.op_count && stretch.ops[j + 1].ins[0] == stretch.ops[j].out ? &stretch.ops[j + 1] : nullptr;
      for (int64_t i = 0; i < stretch.count; i++)
        out[number_of(stretch, stretch.ops[j], i)] = next && norm_of(*next, number_of(stretch, *next, i)) == batch_norm;
    }
  }
}

}  // namespace pykernel

// What follows from the order of ops.
// SPDX-License-Identifier: BSD-3-Clause
#include "pykernel/program.hpp"

#include "ops.hpp"

namespace pykernel {

Counts add_stretch(Stretch& stretch, Op* ops, int64_t op_count, int64_t count, const Counts& first) {
  Counts each = {}, after = first;
  for (int64_t j = 0; j < op_count; j++) ops[j].at = each.of[(int)facts_of(ops[j].kind).table]++;
  stretch = {ops, op_count, count, first, each};
  for (int t = 0; t < table_count; t++) after.of[t] += count * each.of[t];
  return after;
}

namespace {

// Whether the first to read what op j writes is an attention, as its keys, and nobody reads it after.
bool is_key(const Stretch& stretch, int64_t j) {
  const int32_t reg = stretch.ops[j].out;
  bool found = false;
  for (int64_t k = j + 1; k < stretch.op_count; k++) {
    const Op& op = stretch.ops[k];
    for (int i = 0; i < facts_of(op.kind).inputs; i++) {
      if (op.ins[i] != reg) continue;
      if (found || op.kind != OpKind::mix || i != 1) return false;
      found = true;
    }
    if (op.out == reg) return found;
  }
  return found && reg != 0;  // register 0 outlives a repetition
}

}  // namespace

void find_centred(const Program& p, int64_t* out) {
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
      const Centred otherwise = is_key(stretch, j) ? over_each_input : not_centred;
      for (int64_t i = 0; i < stretch.count; i++) {
        const bool normed = next && norm_of(*next, number_of(stretch, *next, i)) == batch_norm;
        out[number_of(stretch, stretch.ops[j], i)] = normed ? over_all_columns : otherwise;
      }
    }
  }
}

}  // namespace pykernel

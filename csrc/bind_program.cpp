// Names of Python's become numbers of C++'s here and nowhere else; what a name or a shape may be is said in the error.
// SPDX-License-Identifier: BSD-3-Clause
#include "bind_program.hpp"

#include <pybind11/stl.h>

#include <algorithm>
#include <unordered_map>

#include "ops.hpp"

namespace py = pybind11;

namespace pykernel {
namespace {

constexpr const char* norm_names[] = {"batch", "layer", "rms"};                // as in Norm, from 1
constexpr const char* loss_names[] = {"mse", "sigmoid", "softmax", "linear"};  // as in Loss, from 1
constexpr const char* over_names[] = {"positions", "first", "last", "mean"};   // as in Over

// The place of a name among some, from 1; 0 for None.
template <size_t count> int place(const py::handle& name, const char* const (&names)[count], const char* what) {
  if (name.is_none()) return 0;
  const std::string given = py::cast<std::string>(name);
  std::string known;
  for (size_t i = 0; i < count; i++) {
    if (given == names[i]) return (int)i + 1;
    known += (i ? ", " : "") + std::string(names[i]);
  }
  throw py::value_error(std::string("unknown ") + what + " " + given + "; known are " + known);
}

OpKind kind_of(const std::string& name) {
  for (int i = 0; i < op_kinds; i++)
    if (name == op_facts[i]->kind) return (OpKind)i;
  throw py::value_error("the compiled engine has no op " + name);
}

int64_t product(const std::vector<int64_t>& numbers) {
  int64_t out = 1;
  for (const int64_t n : numbers) out *= n;
  return out;
}

}  // namespace

py::handle interned(const char* name) {
  thread_local std::unordered_map<const char*, py::handle> names;
  py::handle& found = names[name];
  if (!found) found = PyUnicode_InternFromString(name);
  return found;
}

py::object Fields::get(const char* name) {
  read_.push_back(name);
  PyObject* found = PyObject_GetAttr(source_.ptr(), interned(name).ptr());
  if (!found) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(found);
}
void Fields::done() const {
  const py::object type = py::type::of(source_);
  const bool named = py::isinstance<py::tuple>(source_);
  const py::object names = type.attr(interned(named ? "_fields" : "__dataclass_fields__"));
  if (py::len(names) == read_.size()) return;  // each is read in one place
  std::string unread;
  for (const py::handle& name : names) {
    const std::string field = py::cast<std::string>(name);
    if (std::find(read_.begin(), read_.end(), field) == read_.end()) unread += (unread.empty() ? "" : ", ") + field;
  }
  throw py::type_error("the compiled engine does not read " + unread + " of " +
                       py::cast<std::string>(type.attr("__name__")));
}

template <class T>
const T* HeldProgram::array(const py::handle& object, const std::vector<int64_t>& shape, const char* what) {
  if (object.is_none()) return nullptr;
  typedef py::array_t<T, py::array::c_style | py::array::forcecast> Array;
  const auto array = Array::check_(object) ? py::reinterpret_borrow<Array>(object) : py::cast<Array>(object);
  if (!std::equal(array.shape(), array.shape() + array.ndim(), shape.begin(), shape.end()))
    throw py::value_error(std::string(what) + " has the wrong shape");
  held_.push_back(array);
  return array.data();
}

// One array a layer, or null; null entries where `list` has None.
const double* const* HeldProgram::arrays(const py::object& list, bool matrices, const char* what) {
  if (list.is_none()) return nullptr;
  const int64_t L = program_.counts[Table::layer];
  if ((int64_t)py::len(list) != L) throw py::value_error(std::string(what) + " must hold one array a layer");
  std::vector<const double*>& out = pointers_.emplace_back();
  for (int64_t i = 0; i < L; i++) {
    const std::vector<int64_t> shape = {program_.units[i], program_.columns[i]};
    out.push_back(array<double>(list[py::int_(i)], matrices ? shape : std::vector<int64_t>{shape[0]}, what));
  }
  return out.data();
}

const char* HeldProgram::text(const py::handle& object) {
  return texts_.emplace_back(py::cast<std::string>(object)).c_str();
}

Draw HeldProgram::draw_of(const py::handle& row) {
  Fields fields(py::reinterpret_borrow<py::object>(row));
  const Draw draw = {text(fields.get("distribution")), fields.read<double>("parameter")};
  fields.done();
  return draw;
}

HeldProgram::HeldProgram(const py::object& source, const Own& own) {
  Fields fields(source);
  Program& p = program_;
  read_stretches(fields.get("stretches"));
  p.registers = fields.read<int64_t>("registers");
  p.nodes = array<int64_t>(fields, "nodes", {p.counts[Table::node] + 1});
  p.batch = fields.read<int64_t>("batch");
  p.positions_out = product(fields.read<std::vector<int64_t>>("positions_out"));
  for (const char* name : {"kernels", "plain_counts", "widest"}) fields.ignore(name);  // they follow from the ops
  p.positions = product(fields.read<std::vector<int64_t>>("positions"));
  p.seed = fields.read<uint64_t>("seed");
  p.exponent = fields.read<bool>("exponent");
  const std::string dtype = fields.read<std::string>("dtype");
  if (dtype != "float32" && dtype != "float64") throw py::value_error("dtype must be float32 or float64");
  is_float_ = dtype == "float32";

  for (const py::handle& draw : fields.get("draws")) draws_.push_back(draw_of(draw));
  p.draws = draws_.data();
  p.draw_count = (int64_t)draws_.size();
  read_layers(Fields(fields.get("layers")));
  p.weights = arrays(fields.get("weights"), true, "weights");
  p.biases = arrays(fields.get("biases"), false, "biases");
  fields.ignore("samplers");  // they are weights, before a run

  read_activations(fields.get("activations"), own);
  read_norms(fields.get("norms"));
  Fields steps(fields.get("steps"));
  p.step_activation = array<int64_t>(steps, "row", {p.counts[Table::activation]});
  p.step_norm = array<int64_t>(steps, "norm", {p.counts[Table::activation]});
  steps.done();
  p.norm_steps = array<int64_t>(fields, "norm_steps", {p.counts[Table::norm]});
  read_affines(fields.get("affines"));
  p.affine_steps = array<int64_t>(fields, "affine_steps", {p.counts[Table::affine]});
  Fields joins(fields.get("joins"));
  p.skip = array<double>(joins, "skip", {p.counts[Table::join]});
  p.branch = array<double>(joins, "branch", {p.counts[Table::join]});
  joins.done();
  p.factors = array<double>(fields, "factors", {p.counts[Table::factor]});
  p.masks = array<double>(fields, "masks", {p.counts[Table::mask]});
  Fields mixes(fields.get("mixes"));
  p.heads = array<int64_t>(mixes, "heads", {p.counts[Table::mix]});
  p.kv_heads = array<int64_t>(mixes, "kv_heads", {p.counts[Table::mix]});
  p.causal = array<bool>(mixes, "causal", {p.counts[Table::mix]});
  p.mix_scale = array<double>(mixes, "scale", {p.counts[Table::mix]});
  mixes.done();
  read_windows(fields.get("windows"));
  p.window_steps = array<int64_t>(fields, "window_steps", {p.counts[Table::window]});

  const int64_t columns = columns_of(p);
  p.x = array<double>(fields, "x", {p.nodes[0], columns});
  p.cotangent = array<double>(fields, "cotangent", {p.nodes[p.counts[Table::node]], columns_out_of(p)});
  p.correlation = fields.read<double>("correlation");
  read_head(Fields(fields.get("head")));
  p.clip_value = fields.read<double>("clip_value");
  read_drives(fields.get("drives"), fields.get("drive"));
  read_formats(fields.get("formats"));
  p.common = fields.read<bool>("common");
  fields.done();
}

void HeldProgram::read_stretches(const py::object& stretches) {
  for (const py::handle& one : stretches) {
    Fields fields(py::reinterpret_borrow<py::object>(one));
    std::vector<Op>& ops = ops_.emplace_back();
    for (const py::handle& row : fields.get("ops")) {
      Fields op(py::reinterpret_borrow<py::object>(row));
      const OpKind kind = kind_of(op.read<std::string>("kind"));
      const auto ins = op.read<std::vector<int32_t>>("ins");
      if ((int)ins.size() != facts_of(kind).inputs)
        throw py::value_error("an op must read as many registers as its kind does");
      Op& to = ops.emplace_back(Op{kind, op.read<int32_t>("out"), {}, 0});
      std::copy(ins.begin(), ins.end(), to.ins);
      op.ignore("at");  // it follows from the order of ops, and so do the counts
      op.done();
    }
    program_.counts = add_stretch(stretches_.emplace_back(), ops.data(), (int64_t)ops.size(),
                                  fields.read<int64_t>("count"), program_.counts);
    for (const char* name : {"first", "each"}) fields.ignore(name);
    fields.done();
  }
  program_.stretches = stretches_.data();
  program_.stretch_count = (int64_t)stretches_.size();
}

void HeldProgram::read_layers(Fields fields) {
  Program& p = program_;
  const std::vector<int64_t> L = {p.counts[Table::layer]};
  p.groups = array<int64_t>(fields, "groups", L);
  p.taps = array<int64_t>(fields, "taps", L);
  for (const char* name : {"kernel", "positions"}) fields.ignore(name);  // they follow from the walk
  p.units = array<int64_t>(fields, "units", L);
  p.columns = array<int64_t>(fields, "columns", L);
  p.weight = array<int64_t>(fields, "weight", L);
  for (int64_t i = 0; i < L[0]; i++) p.weight_count = std::max(p.weight_count, p.weight[i] + 1);
  if (p.weight_count == L[0]) p.weight = nullptr, p.weight_count = 0;
  p.address = array<int64_t>(fields, "address", L);
  p.draw = array<int64_t>(fields, "draw", L);
  p.scale = array<double>(fields, "scale", L);
  p.bias_draw = array<int64_t>(fields, "bias_draw", L);
  p.bias_scale = array<double>(fields, "bias_scale", L);
  p.centred = array<int64_t>(fields, "centred", L);
  fields.done();
}

// The user's functions of one number, for those who want arrays.
template <int which> static void call_each(const double* z, double* out, int64_t n, void* functions) {
  const auto f = reinterpret_cast<double (*)(double)>(static_cast<const uintptr_t*>(functions)[which]);
  for (int64_t i = 0; i < n; i++) out[i] = f(z[i]);
}

void HeldProgram::read_activations(const py::object& rows, const Own& own) {
  size_t i = 0;
  for (const py::handle& row : rows) {
    const auto fact = [&](const char* field) { return py::cast<double>(row.attr(field)); };
    std::vector<double>& parameters = parameters_.emplace_back(py::cast<std::vector<double>>(row.attr("parameters")));
    ActivationRow to = {text(row.attr("name")), parameters.data(),   fact("left"),
                        fact("right"),          fact("before_zero"), fact("after_zero"),
                        fact("at_zero"),        fact("max_slope"),   py::cast<bool>(row.attr("flat"))};
    if (i < own.size() && own[i].size() == 2) {
      OwnFunctions& f = own_.emplace_back(OwnFunctions{{own[i][0].first, own[i][1].first}, {}});
      const auto array = [&](size_t k) { return reinterpret_cast<Function<double>>(f.functions[k]); };
      f.callback = {nullptr, nullptr, own[i][0].second ? call_each<0> : array(0),
                    own[i][1].second ? call_each<1> : array(1), f.functions};
      to.name = "callback";
      to.parameters = activation_row(f.callback).parameters;
    }
    activations_.push_back(to);
    i++;
  }
  program_.activations = activations_.data();
  program_.activation_count = (int64_t)activations_.size();
}

void HeldProgram::read_norms(const py::object& rows) {
  for (const py::handle& row : rows) {
    Fields fields(py::reinterpret_borrow<py::object>(row));
    norms_.push_back({place(fields.get("kind"), norm_names, "norm"), fields.read<double>("eps")});
    fields.done();
  }
  program_.norms = norms_.data();
  program_.norm_count = (int64_t)norms_.size();
}

void HeldProgram::read_formats(const py::object& formats) {
  if (formats.is_none()) return;
  const bool saturates = py::cast<std::string>(formats.attr("overflow")) == "saturate";
  const bool stochastic = py::cast<std::string>(formats.attr("rounding")) == "stochastic";
  const auto format = [&](const char* of) -> Format {
    const py::object row = formats.attr("row")(of);
    if (row.is_none()) return {};
    return {py::cast<int>(row.attr("fraction")), py::cast<int>(row.attr("lowest")),
            py::cast<double>(row.attr("largest")), py::cast<bool>(row.attr("infinite")) && !saturates, stochastic};
  };
  formats_ = {format("weights"), format("signals"), format("gradients"), py::cast<double>(formats.attr("loss_scale"))};
  program_.formats = &formats_;
}

void HeldProgram::read_affines(const py::object& rows) {
  for (const py::handle& row : rows) {
    Fields fields(py::reinterpret_borrow<py::object>(row));
    const py::object weight = fields.get("weight");
    const int64_t units = (int64_t)py::len(weight);
    affines_.push_back({units, array<double>(weight, {units}, "weight"), array<double>(fields, "bias", {units})});
    fields.done();
  }
  program_.affines = affines_.data();
  program_.affine_count = (int64_t)affines_.size();
}

void HeldProgram::read_drives(const py::object& units, const py::object& arrays) {
  Program& p = program_;
  const int64_t count = p.counts[Table::drive];
  p.drives = array<int64_t>(units, {count}, "drives");
  if (arrays.is_none()) return;
  if ((int64_t)py::len(arrays) != count) throw py::value_error("drive must hold one array a drive");
  std::vector<const double*>& out = pointers_.emplace_back();
  for (int64_t i = 0; i < count; i++)
    out.push_back(array<double>(arrays[py::int_(i)], {p.drives[i], columns_of(p)}, "drive"));
  p.drive = out.data();
}

void HeldProgram::read_windows(const py::object& rows) {
  for (const py::handle& row : rows) {
    Fields fields(py::reinterpret_borrow<py::object>(row));
    Window& w = windows_.emplace_back();
    for (const auto& [name, to] : {std::pair("field", w.field),
                                   {"taps", w.taps},
                                   {"stride", w.stride},
                                   {"padding", w.padding},
                                   {"dilation", w.dilation}}) {
      const auto pair = fields.read<std::pair<int64_t, int64_t>>(name);
      to[0] = pair.first, to[1] = pair.second;
    }
    w.circular = fields.read<bool>("circular");
    w.largest = fields.read<bool>("largest");
    w.by_units = fields.read<bool>("by_units");
    fields.done();
  }
  program_.windows = windows_.data();
  program_.window_count = (int64_t)windows_.size();
}

void HeldProgram::read_head(Fields fields) {
  HeadSpec& head = program_.head;
  const int64_t n = program_.nodes[program_.counts[Table::node]];
  head.loss = place(fields.get("loss"), loss_names, "loss");
  head.outputs = fields.read<int64_t>("outputs");
  head.draw = draw_of(fields.get("draw"));
  head.scale = fields.read<double>("scale");
  head.weight = array<double>(fields, "weight", {head.outputs, n});
  head.bias = array<double>(fields, "bias", {head.outputs});
  head.over = place(fields.get("over"), over_names, "over") - 1;
  head.targets = array<double>(fields, "targets", {head.outputs, read_columns_of(program_)});
  fields.done();
}

}  // namespace pykernel

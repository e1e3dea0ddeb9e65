// The dense engine: every weight drawn by address (or kept), or the caller's own, or one of the few that need no
// product. SPDX-License-Identifier: BSD-3-Clause
#pragma once
#include "buffer.hpp"
#include "draws.hpp"
#include "kernels/product.hpp"
#include "run.hpp"

namespace pykernel {

// The caller's matrices in panels, a weight that layers share once. One for all workers.
template <class T> class GivenWeights {
 public:
  GivenWeights(const Program& program, int64_t first_layer);
  static int64_t bytes(const Program& program, int64_t first_layer);
  const T* of(size_t weight) const { return panels_[weight].get(); }  // from that of first_layer on

 private:
  Vector<Buffer<T>> panels_;
};

template <class T> class Dense final : public Linear<T> {
 public:
  // Layers first_layer and those behind it. bytes: for draws kept between the passes; half as many where a whole
  // network does not fit.
  Dense(const Program& program, std::shared_ptr<const GivenWeights<T>> given, int64_t first_layer, int64_t bytes);
  // What one takes of a workspace, without kept draws and the caller's matrices; and what all draws take.
  static int64_t bytes(const Program& program, int64_t first_layer);
  static int64_t draw_bytes(const Program& program);

  void begin(int64_t replica, Team&) override;
  bool keeps_all() const override { return keeps_all_; }
  double work(int64_t layer, int64_t columns) const override;
  void forward(int64_t layer, int64_t B, const Block<T>& u, const double* gram, Block<T>& z, Team&,
               const Format& format) override;
  void backward(int64_t layer, int64_t B, const Block<T>& u, const double* gram, const Block<T>& delta,
                const double* delta_gram, Block<T>& du, Team&, const Format& format) override;

 private:
  struct Drawn {
    int64_t layer;   // the first with this weight
    float* kept;     // draws of its forward pass, or null
    bool written;    // in this replica
    bool by_blocks;  // as they were written: what reads them may ask for other columns, as heads over positions do
  };
  size_t place(int64_t layer) const { return (size_t)(weight_of(program_, layer) - weight_of(program_, first_)); }
  Drawn& at(int64_t layer) { return drawn_[place(layer)]; }
  const Unit& unit(int64_t layer, const LayerOf& of) const;
  void keep_draws(int64_t bytes);
  Weights<T> weights(int64_t layer, const LayerOf& of, const Unit& unit, Team& team, const Format& format, int& shift);
  void lay_panel(const Weights<T>& w, const Unit& unit, const float* kept, int64_t panel, T* all) const;
  void round_by_chance(Weights<T>& w, const Unit& unit, int64_t layer, Team& team);
  const T* panels_of_groups(const Weights<T>& w, const Unit& unit, Team& team);
  int64_t share(int64_t panels, int64_t work, const Team& team) const;
  void diagonal(const Block<T>& x, int64_t B, T scale, Block<T>& y) const;
  void rank_one(const Block<T>& x, int64_t B, T scale, Block<T>& y) const;

  const Program& program_;
  const Products<T>& table_;
  const int64_t first_, last_;
  std::shared_ptr<const GivenWeights<T>> given_;
  Vector<Unit> units_;   // of the program's draws, the head, and given weights
  Vector<Drawn> drawn_;  // of each weight
  Pages pages_;
  Buffer<T> frames_, grouped_, chance_;  // a weight made as a whole: orthogonal, in groups, or rounded by chance
  uint32_t replica_ = 0;
  bool keeps_all_ = true;
  bool shares_ = false;  // some layers have one weight: products forward read its draws, too
  int64_t framed_ = 0;
};

// keep_bytes: as above, of all workers together
template <class T> MakeLinear<T> make_dense(int64_t keep_bytes);

}  // namespace pykernel

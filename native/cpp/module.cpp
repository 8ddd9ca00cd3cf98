// The Python module: pointers and sizes in, nothing checked here. kvorum/models/packed/products.py and kvorum/attention/native.py check
// shapes and dtypes once and keep the tensors alive; addresses as integers cost a tenth of an array protocol.
#include <nanobind/nanobind.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "decoder.h"
#include "processor.h"
#include "sampling.h"

namespace nb = nanobind;

namespace kvorum {

const Kernels* current = nullptr;

namespace {

// Addresses come from Python as integers.
template <class T>
T* at(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

// Fastest first, those that this processor has.
const Kernels* const* all() {
  static const Kernels* table[5] = {};
  static const bool filled = [] {
    int n = 0;
#ifdef KVORUM_X86
    if (has_avx2() && has_avx512()) table[n++] = &kAvx512;
    if (has_avx2()) table[n++] = &kAvx2;
#elif defined(KVORUM_ARM)
    if (has_dotprod() && has_i8mm()) table[n++] = &kNeonI8mm;
    if (has_dotprod()) table[n++] = &kNeonDotprod;
    table[n++] = &kNeon;
#endif
    table[n++] = &kScalar;
    return true;
  }();
  (void)filled;
  return table;
}

nb::list paths() {
  nb::list names;
  for (auto t = all(); *t; ++t) names.append((*t)->name);
  return names;
}

void use(const char* name) {
  for (auto t = all(); *t; ++t)
    if (!std::strcmp((*t)->name, name)) {
      current = *t;
      use_attention(name);
      use_sampling(name);
      return;
    }
  throw nb::value_error("this processor has no such path");
}

const char* path() { return current->name; }

// Below this many values the calling thread is done before another would have started.
constexpr int64_t kAlone = 8192;

template <class F>
void quantise(int64_t m, int64_t k, uintptr_t codes, uintptr_t scales, int threads, F&& f) {
  nb::gil_scoped_release free;
  const Rows out{at<int8_t>(codes), at<float>(scales), m};
  together(m * k < kAlone ? 1 : threads, [&](Team& team) {
    team.each(m, std::max<int64_t>(1, kAlone / 2 / k), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) f(i, out.row(i));
    });
  });
}

}  // namespace
}  // namespace kvorum

NB_MODULE(_native, m) {
  using namespace kvorum;
  nb::set_leak_warnings(false);  // Python may end while models are alive
  m.attr("ABI") = 3;  // count it up when a call changes, here and in kvorum/native_extension.py, and change _native.pyi with it
  use(all()[0]->name);
  m.def("paths", &paths);
  m.def("use", &use);
  m.def("path", &path);
  m.def("have_threads", &have_threads);
  m.def("quantize", [](uintptr_t x, int64_t rows, int64_t k, uintptr_t codes, uintptr_t scales, int threads) {
    quantise(rows, k, codes, scales, threads,
             [&](int64_t i, Quantized out) { current->quantize(at<const float>(x) + i * k, k / kGroup, out); });
  });
  m.def("rms_quantize", [](uintptr_t x, uintptr_t weight, float eps, int64_t rows, int64_t k, uintptr_t codes,
                           uintptr_t scales, int threads) {
    quantise(rows, k, codes, scales, threads, [&](int64_t i, Quantized out) {
      current->rms_quantize(at<const float>(x) + i * k, at<const float>(weight), eps, k / kGroup, out);
    });
  });
  m.def("silu_mul_quantize", [](uintptr_t gate_up, int64_t rows, int64_t k, uintptr_t codes, uintptr_t scales,
                                int threads) {
    quantise(rows, k, codes, scales, threads, [&](int64_t i, Quantized out) {
      const float* gate = at<const float>(gate_up) + i * 2 * k;
      current->silu_mul_quantize(gate, gate + k, k / kGroup, out);
    });
  });
  nb::class_<Matrix>(m, "Matrix")
      .def(nb::init<int64_t>())
      .def("add",
           [](Matrix& self, int bits, uintptr_t w, int64_t n, uintptr_t mult, uintptr_t bias) {
             self.add(bits, at<const uint8_t>(w), n, at<const float>(mult), at<const float>(bias));
           })
      .def("forward", [](const Matrix& self, uintptr_t codes, uintptr_t scales, int64_t rows, uintptr_t y, int64_t ldy,
                         bool add, int threads) {
        nb::gil_scoped_release free;
        const Rows x{at<int8_t>(codes), at<float>(scales), rows};
        together(threads, [&](Team& team) { self.forward(team, x, at<float>(y), ldy, add); });
      });
  nb::class_<Layer>(m, "AttentionLayer")
      .def("__init__", [](Layer* self, uintptr_t keys, uintptr_t values, bool narrow, int64_t slots, int64_t q_heads,
                          int64_t kv_heads, int64_t k_dim, int64_t v_dim, int64_t style, int64_t start, int64_t half,
                          int64_t window, float softcap, float scale, uintptr_t sinks) {
        new (self) Layer{at<void>(keys), at<void>(values), narrow ? kFloat16 : kFloat, slots, q_heads, kv_heads, k_dim, v_dim,
                         style, start, half, window, softcap, scale, at<const float>(sinks)};
      })
      .def("hold_int8", [](Layer& self) { self.stored = kInt8; });
  nb::class_<Rotation>(m, "Rotation")
      .def("__init__", [](Rotation* self, uintptr_t query_cos, uintptr_t query_sin, uintptr_t new_cos,
                          uintptr_t new_sin, uintptr_t shift_cos, uintptr_t shift_sin, uintptr_t shift_row) {
        new (self) Rotation{at<const float>(query_cos), at<const float>(query_sin), at<const float>(new_cos),
                            at<const float>(new_sin),   at<const float>(shift_cos), at<const float>(shift_sin),
                            at<const int64_t>(shift_row)};
      });
  nb::class_<Plan>(m, "AttentionPlan")
      .def("__init__",
           [](Plan* self, uintptr_t table, int64_t segments, uintptr_t query_tokens, uintptr_t deltas, uintptr_t slots,
              int64_t tokens) {
             new (self) Plan(at<const int64_t>(table), segments, at<const int64_t>(query_tokens),
                             at<const int64_t>(deltas), at<const int64_t>(slots), tokens);
           })
      .def("watch", [](Plan& self, uintptr_t group, int64_t groups, uintptr_t line, int64_t lines, uintptr_t out) {
        self.watch({at<const int32_t>(group), groups, at<const int64_t>(line), lines, at<float>(out)});
      })
      .def("aim", [](Plan& self, uintptr_t out) { self.aim(at<float>(out)); })
      .def("attend", [](Plan& self, const Layer& layer, const Rotation& turns, uintptr_t q, int64_t q_token,
                        uintptr_t k, int64_t k_token, uintptr_t v, int64_t v_token, uintptr_t out, int threads) {
        nb::gil_scoped_release free;
        self.prepare(layer);
        const Inputs in{at<const float>(q), q_token, at<const float>(k), k_token, at<const float>(v), v_token};
        together(threads, [&](Team& team) {
          self.attend(team, layer, turns, in);
          team.each(self.tokens(), 4, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
              self.merge(layer, i, at<float>(out) + i * layer.q_heads * layer.v_dim);
              self.share(layer, 0, i);
            }
          });
        });
      });
  nb::class_<Decoder>(m, "Decoder")
      .def("__init__",
           [](Decoder* self, int64_t q_heads, int64_t kv_heads, int64_t dim, float eps, uintptr_t norm,
              const Matrix& head) { new (self) Decoder(q_heads, kv_heads, dim, eps, at<const float>(norm), head); })
      .def_prop_ro("q_heads", &Decoder::q_heads)
      .def("add",
           [](Decoder& self, uintptr_t norm, const Matrix& qkv, uintptr_t q_norm, uintptr_t k_norm, const Matrix& out,
              uintptr_t mlp_norm, const Matrix& gate_up, const Matrix& down) {
             self.add({at<const float>(norm), qkv, at<const float>(q_norm), at<const float>(k_norm), out,
                       at<const float>(mlp_norm), gate_up, down});
           })
      .def("forward", [](Decoder& self, Plan& plan, const std::vector<const Layer*>& attention,
                         const std::vector<const Rotation*>& turns, uintptr_t x, uintptr_t index, int64_t count,
                         uintptr_t logits, uintptr_t hidden, int threads) {
        nb::gil_scoped_release free;
        self.forward(plan, attention, turns, at<float>(x), at<const int64_t>(index), count, at<float>(logits),
                     at<float>(hidden), threads);
      });
  nb::class_<Draws>(m, "Draws")
      .def(nb::init<int64_t>())
      .def("add",
           [](Draws& self, uintptr_t logits, uintptr_t allowed, uintptr_t banned, int64_t bans, double temperature,
              double top_p, double min_p, int64_t top_k, uint64_t seed, uint64_t stream, uint64_t step, bool telling) {
             self.add({at<const float>(logits), at<const uint8_t>(allowed), at<const int64_t>(banned), bans,
                       temperature, top_p, min_p, top_k, seed, stream, step, telling});
           })
      .def("run", [](Draws& self, int threads) {
        {
          nb::gil_scoped_release free;
          self.run(threads);
        }
        nb::list found;
        for (const Draw& d : self.done()) found.append(nb::make_tuple(d.id, d.logprob));
        return found;
      });
  m.def("uniform", &uniform);
}

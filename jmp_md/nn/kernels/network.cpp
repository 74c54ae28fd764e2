// The function that Python calls.

#include "block.h"
#include "block_backward.h"
#include "ends.h"

// Energies (atoms) and, where wanted, gradients of their sum, which are added to what is there.
// Returns 0, or 1 where memory is short.
extern "C" int jmp_network(const real* const* pointers, const Index* counts, const double* numbers,
                           const void* const* arrays, const Index* sizes, int smooth,
                           double inline_sin2, int threads, int gradient, Index keep,
                           real* energies) {
  static thread_local Arena arena;
  arena.reset();
  try {
    const Model model(Reader{pointers, counts, numbers}, smooth, inline_sin2);
    Graph graph(arrays, sizes);
    Network(model, graph, arena, threads, gradient).run(energies);
    arena.shrink(keep / sizeof(real));
    return 0;
  } catch (const std::bad_alloc&) {
    arena.shrink(0);
    return 1;
  }
}

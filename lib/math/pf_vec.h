/* The vectors of the kernels that are compiled once for each level of the CPU: WIDTH floats, the
 * compiler's own (an extension of both gcc and clang). */
#ifndef PF_VEC_H
#define PF_VEC_H

#include "base/pf_base.h"

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__AVX__)
#define WIDTH 8
#else
#define WIDTH 4
#endif

typedef float vec __attribute__((vector_size(WIDTH * sizeof(float))));
typedef float vec_anywhere __attribute__((vector_size(WIDTH * sizeof(float)), aligned(4)));

#define INLINE static inline __attribute__((always_inline))
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define LOAD(pointer) (*(const vec_anywhere *)(pointer))
#define STORE(pointer, value) (*(vec_anywhere *)(pointer) = (value))

#endif

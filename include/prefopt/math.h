/* prefopt/math.h: numerically stable functions of logarithms. */
#ifndef PREFOPT_MATH_H
#define PREFOPT_MATH_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __cplusplus
}
#endif
#endif

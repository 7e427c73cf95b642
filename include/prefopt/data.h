/* prefopt/data.h: token sequences and the dataset. */
#ifndef PREFOPT_DATA_H
#define PREFOPT_DATA_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __cplusplus
}
#endif
#endif

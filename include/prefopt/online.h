/* prefopt/online.h: sampler and ranker. */
#ifndef PREFOPT_ONLINE_H
#define PREFOPT_ONLINE_H

#include "model.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __cplusplus
}
#endif
#endif

"""usage: mutations.py --root R --work W --compiler C --libraries A... [--only TEXT]

Changes the device's kernels, one place at a time, and looks whether the emulator notices. Each mutant
is compiled as kvc_cuda_checked compiles kernels, linked before that library, and run by
mutation_main.cc. MUTATIONS says for each whether it is a fault, and what must catch it: a report of the
checker, a wrong result, or conflicts that are counted; "silent" where the kernel is still right. Fails
where one is caught by something else, or where a text to replace is not in the source.
"""

import argparse
import concurrent.futures
import pathlib
import shutil
import subprocess
import sys

DECODE = "kernels/cuda/decode_attention.cu"
ROWS = "kernels/cuda/decode_rows.cuh"
PREFILL = "kernels/cuda/prefill_attention.cu"
REBUILD = "kernels/cuda/rebuild_keys.cu"
TILE = "kernels/cuda/row_tile.cuh"
PRODUCTS = "kernels/cuda/prefill_products.cuh"
SOFTMAX = "kernels/cuda/prefill_softmax.cuh"
PREFILL_LATENTS = "kernels/cuda/prefill_latents.cuh"
LATENT_ROWS = "kernels/cuda/decode_latent_rows.cuh"
LATENTS = "kernels/cuda/latent_keys.cuh"
SPLIT = "kernels/cuda/split_pair.cuh"
MIXED = "kernels/cuda/decode_mixed_rows.cuh"
DECODERS = "kernels/cuda/row_decoders.cuh"
NORM = "kernels/cuda/norm.cu"
PRODUCT = "kernels/cuda/few_row_product.cu"
ELEMENTS = "kernels/cuda/elementwise.cu"
SAMPLING = "kernels/cuda/sampling.cu"
BEST = "kernels/cuda/best_token.cuh"
MOVE = "kernels/cuda/move_rows.cu"
CODEC = "kernels/cuda/row_codec.cuh"
PROJECT = "kernels/cuda/project_rows.cu"
SELECT = "kernels/cuda/select.cu"
FINISH = "kernels/cuda/finish_scores.cu"
RESERVE = "kernels/cuda/reserve_shares.cu"
SCORES = "kernels/cuda/scores.cu"
SCORE_QUERIES = "kernels/cuda/score_queries.cu"
SCORE_STATES = "kernels/cuda/score_states.cu"
SCORE_TILE = "kernels/cuda/score_tile.cuh"
SCORE_SUMS = "kernels/cuda/score_sums.cuh"
PARTS_OF_MATRICES = "kernels/cuda/project_rows.cuh"

# What is run for a source, and the source to compile for it.
PARTS = {DECODE: ("decode", DECODE), ROWS: ("decode", DECODE), LATENT_ROWS: ("decode", DECODE),
         LATENTS: ("decode", DECODE), SPLIT: ("decode", DECODE),
         MIXED: ("decode", DECODE),
         PREFILL: ("prefill", PREFILL), TILE: ("prefill", PREFILL),
         PRODUCTS: ("prefill", PREFILL),
         PREFILL_LATENTS: ("prefill", PREFILL), SOFTMAX: ("prefill", PREFILL),
         REBUILD: ("rebuild", REBUILD), DECODERS: ("rebuild", REBUILD), NORM: ("norm", NORM),
         PRODUCT: ("product", PRODUCT), ELEMENTS: ("elementwise", ELEMENTS),
         SAMPLING: ("sample", SAMPLING), BEST: ("sample", SAMPLING),
         MOVE: ("move", MOVE), CODEC: ("move", MOVE), PROJECT: ("project", PROJECT),
         PARTS_OF_MATRICES: ("project", PROJECT), SELECT: ("select", SELECT),
         FINISH: ("finish", FINISH), RESERVE: ("reserve", RESERVE),
         SCORES: ("scores", SCORES), SCORE_QUERIES: ("scores", SCORE_QUERIES),
         SCORE_STATES: ("scores", SCORE_STATES), SCORE_TILE: ("scores", SCORES),
         SCORE_SUMS: ("scores", SCORES)}

# Mutants of attention are compiled for bf16, f32 and any rows at width 64 alone.
FEWER = {DECODE: [("LaunchOfWidth<128>(", "LaunchOfWidth<64>("),
                  ("constexpr int kWidth = kMostDecodeWidth;", "constexpr int kWidth = 64;"),
                  ("MatrixRows<__half, kWidth>", "MatrixRows<__nv_bfloat16, kWidth>")],
         PREFILL: [("LaunchPrefillOf<64, 128>(", "LaunchPrefillOf<64, 64>("),
                   ("LaunchPrefillOf<128, 128>(", "LaunchPrefillOf<64, 64>("),
                   ("LaunchPrefillOf<256, 128>(", "LaunchPrefillOf<64, 64>("),
                   ("MatrixProducts<__half,", "MatrixProducts<__nv_bfloat16,")],
         PROJECT: [("LaunchProjectOf<128>(", "LaunchProjectOf<64>("),
                   ("LaunchProjectOf<256>(", "LaunchProjectOf<64>(")]}

# name, source, text, replacement, what must come of it
MUTATIONS = [
    ("nothing changed", DECODE, "", "", "silent"),
    ("no barrier before a head's results", DECODE,
     "SyncBlock();  // the head before has been merged", "", "got a race"),
    ("no barrier after a head's results", DECODE,
     "StoreWarpResult<Rows, kWidth>(results, state);\n  SyncBlock();",
     "StoreWarpResult<Rows, kWidth>(results, state);", "got an unwritten read"),
    ("no barrier before arriving", DECODE,
     "SyncBlock();  // the block's partial result is complete", "", "got a race"),
    ("no fence before arriving", DECODE, "Fence();\n    results.last", "results.last", "got a race"),
    ("no fence after arriving", DECODE, "== head.partials - 1;\n    Fence();",
     "== head.partials - 1;", "got a race"),
    ("no barrier after arriving", DECODE, "SyncBlock();\n  if (results.last)", "if (results.last)",
     "shared memory: expected"),
    ("no wait for copies", DECODE, "WaitCopies<Rows::kStages - 2>();", "", "copy in flight"),
    ("a wait for one group too few", DECODE, "WaitCopies<Rows::kStages - 2>();",
     "WaitCopies<Rows::kStages - 1>();", "copy in flight"),
    ("a wait for all groups", DECODE, "WaitCopies<Rows::kStages - 2>();", "WaitCopies<0>();", "silent"),
    ("no warp barrier after the wait", DECODE, "SyncWarp();  // all lanes' copies are there", "//",
     "shared memory: expected"),
    ("the next copies start before the tile is read", DECODE,
     "float s[4] = {};\n        Rows::Scores", "copies.Next(shared);\n        float s[4] = {};\n        Rows::Scores",
     "report: "),
    ("one stage more than needed", ROWS, "kStages = kWidth <= 128 ? 3 : 2;", "kStages = 4;",
     "silent"),
    ("two stages", ROWS, "kStages = kWidth <= 128 ? 3 : 2;", "kStages = 2;", "silent"),
    ("too little shared memory", DECODE, "sizeof(DecodeShared<Rows, kWidth>)),",
     "sizeof(DecodeShared<Rows, kWidth>) / 2),", "a launch with less"),
    ("a barrier that one warp passes by", DECODE,
     "SyncBlock();  // the block's partial result is complete",
     "if (threadIdx.x < 96) SyncBlock();", "got two lines"),
    ("a sum of half a warp", DECODE, "const float sum = WarpSum<28>(state.sum[j]);",
     "const float sum = lane < 16 ? WarpSum<28>(state.sum[j]) : 0.0F;", "report: "),
    ("a counter that stays", DECODE, "in.arrived[piece.head] = 0;", "", "wrong"),
    ("a tail row that is not masked", DECODE, "s[j + 2] = g + 8 < valid ?",
     "s[j + 2] = g + 8 < valid + 1 ?", "wrong"),
    ("sums that are not rescaled", DECODE, "o[m][j + 2] *= correction;", "", "wrong"),
    ("a copy of one row too many", ROWS, "row + r < end;", "row + r <= end;", "out of bounds"),
    ("rows beyond the end not cleared", ROWS, "    CopyAsync16(tile",
     "    if (valid) CopyAsync16(tile", "got an unwritten read"),
    ("rows read 8 bytes too late", ROWS, "static_cast<const uint4*>(rows.data) +",
     "reinterpret_cast<const uint4*>(static_cast<const char*>(rows.data) + 8) +", "misaligned"),
    ("chunks not swapped", ROWS, "(chunk ^ ((row >> shift) & mask))", "chunk", "conflicts"),
    ("queries without their padding", ROWS, "[kWidth + 4];  // 4 more", "[kWidth];  // 4 more",
     "conflicts"),
    ("dimensions beyond a key's width", ROWS, "a[2] = a[3] = 0;", "", "wrong"),
    ("no barrier after the queries", ROWS, "SyncBlock();\n    queries.shared", "queries.shared",
     "report: "),
    ("rows that are not there yet", DECODE, "min(piece.end, *live)", "piece.end",
     "got an unwritten read"),
    ("a tile decoded before the one before is read", DECODE,
     "SyncWarp();  // the tile before has been read", "", "got a race"),
    ("elements beyond a row's width", DECODERS, "d + j < width ? ToFloat(from[j]) : 0.0F",
     "ToFloat(from[j])", "report: "),
    ("the scale taken for codes", DECODERS, "words[1 + d / 4]", "words[d / 4]", "wrong"),
    ("a mixed row too many", MIXED, "if (i < total && row + r < end)",
     "if (i < total && row + r <= end)", "report: "),
    ("scales of rows that are not there", MIXED, "row + lane < end ? decoder.ScaleOfRow(row + lane) : 0.0F",
     "decoder.ScaleOfRow(row + lane)", "report: "),
    ("queries of one bf16 number", MIXED, "MultiplyAdd<Element>(s, a, {q[0].low, q[1].low});", "", "wrong"),
    ("weights of one bf16 number", MIXED, "MultiplyAdd<Element>(o[m], a, low);", "", "wrong"),
    ("keys without their scales", MIXED, "s[2] *= scales[lane / 4 + 8];", "", "wrong"),
    ("mixed dimensions beyond a key's width", MIXED, "a[2] = a[3] = 0;", "", "wrong"),
    ("unsigned codes", DECODERS, "static_cast<int8_t>(codes", "static_cast<uint8_t>(codes", "wrong"),
    ("four elements at any address", DECODERS, "together = address % (4 * sizeof(T)) == 0",
     "together = true", "misaligned"),
    ("rows without their low plane", MIXED, "MultiplyAdd<Element>(s, a, {q[0].high, q[1].high});  // of the",
     "//", "wrong"),
    ("a mixture's bits of the run before", MIXED, "d < rows.ends[0] ? 8", "d <= rows.ends[0] ? 8", "wrong"),
    ("a mixture's columns without bits", MIXED, "bits, coded - d, x", "bits, width - d, x", "wrong"),
    ("values without their low plane", MIXED, "MultiplyAdd<Element>(o[m], a, high);  // of the", "//", "wrong"),
    ("latents: no barrier after the queries", LATENT_ROWS, "SyncBlock();  // the queries", "//", "report: "),
    ("latents: a norm of a lane's dimensions", LATENTS, "WarpSum<3>(squares_[r])", "squares_[r]", "wrong"),
    ("latents: scores without their norm", LATENT_ROWS, "s[2 * r + 1] *= factor;", "", "wrong"),
    ("latents: turned the other way", LATENTS, "a * cos - b * sin", "a * cos + b * sin", "wrong"),
    ("latents: dimensions that do not turn", LATENTS, "if (pair < how_.rotation.half)", "if (true)",
     "report: "),
    ("latents: a row too many", LATENTS, "at < visible.end", "at <= visible.end", "report: "),
    ("latents: f32 taken for bf16", LATENTS, "exact = tile.rows.code == RowCode::kBF16", "exact = true",
     "wrong"),
    ("latents: low parts are always there", LATENTS, "exact = tile.rows.code == RowCode::kBF16",
     "exact = false", "silent"),
    ("latents: a matrix of one bf16 number", SPLIT, "MultiplyAdd<__nv_bfloat16>(d, a.high, b.low);", "",
     "wrong"),
    ("nothing changed in prefill", PREFILL, "", "", "silent"),
    ("prefill: no wait for copies", PREFILL, "WaitCopies<0>();", "", "copy in flight"),
    ("prefill: a wait for one group too few", PREFILL, "WaitCopies<0>();", "WaitCopies<1>();",
     "copy in flight"),
    ("prefill: no barrier at a tile", PREFILL, "SyncBlock();  // the tile is complete", "//",
     "shared memory: expected"),
    ("prefill: the next keys over these", PREFILL, "shared.keys[stage ^ 1].Fill",
     "shared.keys[stage].Fill", "report: "),
    ("prefill: the next values over these", PREFILL, "shared.values[stage ^ 1].Fill",
     "shared.values[stage].Fill", "report: "),
    ("prefill: three stages", PREFILL, "constexpr int kStages = 2;", "constexpr int kStages = 3;",
     "silent"),
    ("prefill: one row of the future", SOFTMAX, "row >= visible[i / 2].end", "row > visible[i / 2].end",
     "wrong"),
    ("prefill: no window", SOFTMAX, "row < visible[i / 2].begin ||", "", "wrong"),
    ("prefill: a mask at the end alone", SOFTMAX, "|| tile < visible[1].begin", "", "wrong"),
    ("prefill: a mask at the window alone", SOFTMAX, "tile + kKeys > visible[0].end ||", "", "wrong"),
    ("prefill: a mask everywhere", SOFTMAX, "tile + kKeys > visible[0].end ||", "true ||", "silent"),
    ("prefill: a row that has seen nothing", SOFTMAX, "peak == -INFINITY ? 0.0F : peak * scale",
     "peak * scale", "wrong"),
    ("prefill: sums that are not rescaled", SOFTMAX, "sum[h] *= correction[h];", "", "wrong"),
    ("prefill: outputs that are not rescaled", SOFTMAX,
     "o[m][i / 4][i % 4] *= correction[Products::RowOf(i / 4, i % 4)];", "", "wrong"),
    ("prefill: a maximum of one lane", SOFTMAX, "WarpMax<3>(peak)", "peak", "wrong"),
    ("prefill: warps that skip nothing", PREFILL,
     "tile < warp_rows.end && tile + kKeys > warp_rows.begin", "true", "silent"),
    ("prefill: queries that do not exist", PREFILL, "const bool exists = token < chunk.tokens;",
     "const bool exists = true;", "out of bounds"),
    ("prefill: outputs beyond a value's width", PREFILL, "outputs[row] != nullptr && d < width",
     "outputs[row] != nullptr", "report: "),
    ("prefill: too little shared memory", PREFILL, "sizeof(PrefillShared<Products>))",
     "sizeof(PrefillShared<Products>) / 2)", "a launch with less"),
    ("prefill: rows beyond the last", TILE, "row < visible.end", "true", "out of bounds"),
    ("prefill: rows before the window", TILE, "row >= visible.begin &&", "", "wrong"),
    ("prefill: chunks beyond a row's width", TILE, " && d < rows.width;", ";", "out of bounds"),
    ("prefill: elements beyond a row's width", TILE, "d + i < width", "true", "out of bounds"),
    ("prefill: tiles not cleared", TILE, "      CopyAsync16(", "      if (valid) CopyAsync16(",
     "got an unwritten read"),
    ("prefill: rows out of line copied in chunks", TILE, "if (InChunks(rows))", "if (true)", "misaligned"),
    ("prefill: chunks not swapped", TILE, "(chunk ^ (row & 7))", "chunk", "conflicts"),
    ("prefill: no barrier before latents' keys are read", PREFILL, "SyncBlock();  // the tile's keys", "//",
     "report: "),
    ("prefill: latents' scores without their norm", PREFILL_LATENTS, "s[n][2 + i % 2] *= factor;", "",
     "wrong"),
    ("prefill: squares of a part of the places", PREFILL_LATENTS,
     "squares += shared.squares[part][key];", "", "wrong"),
    ("prefill: no barrier before arriving", PREFILL, "SyncBlock();  // the split's partial", "//",
     "got a race"),
    ("prefill: no fence before arriving", PREFILL, "Fence();\n    last =", "last =", "got a race"),
    ("prefill: no fence after arriving", PREFILL, "== call.chunk.splits - 1;\n    Fence();",
     "== call.chunk.splits - 1;", "got a race"),
    ("prefill: no barrier after arriving", PREFILL, "SyncBlock();  // all know", "//", "report: "),
    ("prefill: a counter that stays", PREFILL, "call.room.arrived[place.unit] = 0;", "", "wrong"),
    ("prefill: a split's outputs not rescaled", PREFILL, "value += weight * LoadFromOthers(part + d);",
     "value += LoadFromOthers(part + d);", "wrong"),
    ("prefill: no warp barrier before the weights", PRODUCTS, "SyncWarp();  // the weights", "//",
     "shared memory: expected"),
    ("nothing changed in rebuild", REBUILD, "", "", "silent"),
    ("rebuild: no barrier before keys are encoded", REBUILD, "SyncWarp();  // all dimensions", "//",
     "shared memory: expected"),
    ("rebuild: rows that are not there", REBUILD, "in.live != nullptr ? *in.live : in.rows", "in.rows",
     "got an unwritten read"),
    ("rebuild: keys beyond the last", REBUILD, "k < kWarpKeys && first + k < end", "k < kWarpKeys",
     "out of bounds"),
    ("rebuild: places without a dimension", REBUILD, "if (d >= 0)", "if (true)", "report: "),
    ("rebuild: no factor of the norm", REBUILD, "keys[k][Shift(k) + d] * factors[k]",
     "keys[k][Shift(k) + d]", "wrong"),
    ("no barrier in a norm's sum", NORM, "SyncBlock();", "", "report: "),
    ("one place for both sums of a norm", NORM, "(sum, power - 1)", "(sum, 0)", "got a race"),
    ("slices beyond the last", NORM, "if (slice >= in.slices)", "if (false)", "out of bounds"),
    ("outputs beyond the last", PRODUCT, "r < in.rows && first + o < in.out", "r < in.rows",
     "report: "),
    ("rows of weights beyond the last", PRODUCT, "min(first + o, in.out - 1)", "first + o",
     "out of bounds"),
    ("rows of x beyond the last", PRODUCT, "min(r, in.rows - 1)", "r", "out of bounds"),
    ("no barrier in a mean's sum", NORM, "SyncBlock();  // the sums of twice", "//", "report: "),
    ("no barrier before rows move down", MOVE, "SyncBlock();  // the rows that are overwritten", "//",
     "got a race"),
    ("a move of one row too many", MOVE, "min(first + kMoveRows, move.rows)",
     "min(first + kMoveRows, move.rows + 1)", "out of bounds"),
    ("a row's last unit left out", MOVE, "bytes / static_cast<int>(sizeof(Unit));",
     "bytes / static_cast<int>(sizeof(Unit)) - 1;", "wrong"),
    ("a scale for each lane", CODEC, "ScaleFor(WarpLargest(largest))", "ScaleFor(largest)", "wrong"),
    ("codes of a lane alone", CODEC, "word |= ShuffleXor(word, 2);", "", "wrong"),
    ("a mixture's step of another run", CODEC, "run * rows.steps_apart", "0", "wrong"),
    ("mixtures that are not alike", CODEC, "return a.code != RowCode::kSpread ||", "return true ||", "wrong"),
    ("a mixture's codes of a lane alone", CODEC, "lanes * place.bits < 16 ? others : 0", "0", "wrong"),
    ("a mixture's last word left as it was", CODEC, "halves[next] = 0;", "", "wrong"),
    ("infinities that are not counted", CODEC, "MagnitudeOf(x) >= kInfinityBits) {\n      AtomicAdd",
     "MagnitudeOf(x) > kInfinityBits) {\n      AtomicAdd", "wrong"),
    ("no barrier before a part of a matrix", PARTS_OF_MATRICES,
     "SyncBlock();  // the part before", "//", "got a race"),
    ("no barrier after a part of a matrix", PARTS_OF_MATRICES, "SyncBlock();  // this part", "//",
     "report: "),
    ("no barrier before reflectors", PARTS_OF_MATRICES, "SyncBlock();  // the reflectors before", "//",
     "got a race"),
    ("no barrier after reflectors", PARTS_OF_MATRICES, "SyncBlock();  // these reflectors", "//",
     "report: "),
    ("parts of matrices without their padding", PARTS_OF_MATRICES, "kProjectPadding = 1;",
     "kProjectPadding = 0;", "conflicts"),
    ("no elements behind the last chunk", PRODUCT, "SumProducts<1>(in, first, whole, in.in, sum);", "",
     "wrong"),
    ("chunks beyond a row's end", PRODUCT, "whole = in.in / n * n;", "whole = (in.in + n - 1) / n * n;",
     "wrong"),
    ("no barrier after the bins are emptied", SELECT, "SyncBlock();  // the bins are empty", "//",
     "report: "),
    ("no barrier after scores are counted", SELECT, "SyncBlock();  // all scores", "//", "report: "),
    ("no barrier after the sums of bins", SELECT, "SyncBlock();  // the sums are", "//", "report: "),
    ("no barrier after a digit is found", SELECT, "SyncBlock();  // the digit", "//", "report: "),
    ("no barrier after a tile's totals", SELECT, "SyncBlock();  // the totals", "//", "report: "),
    ("no barrier before the next tile's totals", SELECT, "SyncBlock();  // they have been", "//",
     "got a race"),
    ("equal scores counted once", SELECT, "AtomicAdd(bins + digit, count);",
     "AtomicAdd(bins + digit, 1);", "report: "),
    ("all equal scores chosen", SELECT, "row_e < left", "true", "report: "),
    ("nothing changed in finished scores", FINISH, "", "", "silent"),
    ("finish: rows beyond the last", FINISH, "if (row >= in.rows)", "if (false)", "out of bounds"),
    ("finish: pooled over the window's border", FINISH, "max(row < split ? 0 : split,", "max(0,", "wrong"),
    ("finish: one head left out", FINISH, "head < in.heads", "head < in.heads - 1", "wrong"),
    ("nothing changed in shares", RESERVE, "", "", "silent"),
    ("reserve: no barrier after keys", RESERVE, "SyncBlock();  // all keys", "//", "report: "),
    ("reserve: no barrier after digits are counted", RESERVE, "SyncBlock();  // all digits", "//",
     "report: "),
    ("reserve: no barrier after counts are summed", RESERVE, "SyncBlock();  // the counts have", "//",
     "report: "),
    ("reserve: no barrier after a digit", RESERVE, "SyncBlock();  // the keys lie", "//", "report: "),
    ("reserve: counts without their padding", RESERVE, "thread + thread / 32", "thread",
     "conflicts"),
    ("reserve: a digit left out", RESERVE, "shift < 32;", "shift < 24;", "wrong"),
    ("groups beyond the last", ELEMENTS, "if (i >= in.total)", "if (false)", "out of bounds"),
    ("nothing changed in sampling", SAMPLING, "", "", "silent"),
    ("the last of the largest", BEST, "other_id < id", "other_id > id", "wrong"),
    ("no barrier after a warp's best", BEST, "SyncBlock();  // every warp's best", "//",
     "unwritten read"),
    ("no barrier before a cut", SAMPLING, "SyncBlock();  // the cut before", "//", "got a race"),
    ("no barrier before a digit", SAMPLING, "SyncBlock();  // the digit before", "//", "report: "),
    ("no barrier after counts", SAMPLING, "SyncBlock();  // every thread has counted", "//",
     "report: "),
    ("no barrier after sums", SAMPLING, "SyncBlock();  // every part is summed", "//", "report: "),
    ("no barrier after the last digit", SAMPLING, "SyncBlock();  // the last digit", "//",
     "got a race"),
    ("no barrier after numbers", SAMPLING, "SyncBlock();  // every thread's number", "//",
     "got a race"),
    ("no barrier before the token", SAMPLING, "SyncBlock();  // the token is chosen", "//",
     "report: "),
    ("no barrier before the thread is known", SAMPLING, "SyncBlock();  // all know the thread", "//",
     "got a race"),
    ("the tie after the one that is due", SAMPLING, "before++ == number", "before++ == number + 1",
     "report: "),
    ("nothing changed in scores", SCORES, "", "", "silent"),
    ("nothing changed in scores' queries", SCORE_QUERIES, "", "", "silent"),
    ("scores: no barrier before rows of M", SCORES, "SyncBlock();  // the rows before", "//",
     "report: "),
    ("scores: no barrier after rows of M", SCORES, "SyncBlock();  // values and these", "//",
     "report: "),
    ("scores: no barrier before queries", SCORES, "SyncBlock();  // the queries before", "//",
     "report: "),
    ("scores: no barrier after queries", SCORES, "SyncBlock();  // keys, queries and states", "//",
     "report: "),
    ("scores: no barrier before outputs", SCORES, "SyncBlock();  // queries have been read", "//",
     "report: "),
    ("scores: no barrier after outputs", SCORES, "SyncBlock();  // their outputs", "//", "report: "),
    ("scores: no barrier before a reduction", SCORE_SUMS, "SyncBlock();  // what was reduced", "//",
     "report: "),
    ("scores: no barrier in a reduction", SCORE_SUMS, "SyncBlock();  // all warps'", "//",
     "report: "),
    ("scores: half of the queries", SCORE_SUMS, "Op::Of(x[j], ShuffleXor(x[j], 16))", "x[j]",
     "wrong"),
    ("scores: a dominant token like others", SCORES, "token == state.dominant", "false", "wrong"),
    ("scores: a query sees one token more", SCORE_TILE, "% head.window_count + 1",
     "% head.window_count + 2", "wrong"),
    ("scores: columns without their padding", SCORE_TILE, "float[kTileEdge][kWidth + 4]",
     "float[kTileEdge][kWidth]", "conflicts"),
    ("first pass: no barrier before keys", SCORE_QUERIES, "SyncBlock();  // the tile before", "//",
     "report: "),
    ("first pass: no barrier after keys", SCORE_QUERIES, "SyncBlock();  // keys are there", "//",
     "report: "),
    ("first pass: no barrier before values", SCORE_QUERIES, "SyncBlock();  // keys have been read",
     "//", "report: "),
    ("first pass: no barrier after values", SCORE_QUERIES, "SyncBlock();  // weights and values",
     "//", "report: "),
    ("first pass: the best so far is forgotten", SCORE_QUERIES, "sum[i] += 1.0F;", "", "wrong"),
    ("first pass: its value is forgotten", SCORE_QUERIES,
     "o[i][c] += DecodeElement(values, row, scale, column);", "", "wrong"),
    ("first pass: queries are not turned back", SCORE_QUERIES,
     "Turn(turn.cos[angle], -turn.sin[angle], x, y);", "", "wrong"),
    ("states: no warp barrier before M", SCORE_STATES, "SyncWarp();  // the rows are complete", "//",
     "report: "),
    ("states: another part's best is forgotten", SCORE_STATES, "(joins ? 1.0F : 0.0F)", "0.0F",
     "wrong"),
]

FLAGS = ["-x", "c++", "-std=c++20", "-O1", "-g1", "-w", "-DKVC_EMULATOR_CHECKS", "-fsanitize=thread"]


def mutant_of(root, source, text, replacement):
    """The changed source as text; the change is at the first place."""
    content = (root / source).read_text()
    for old, new in FEWER.get(source, []):
        if old not in content:
            raise ValueError(f"{source}: expected {old!r} in it")
        content = content.replace(old, new)
    if text not in content:
        raise ValueError(f"{source}: expected {text!r} in it")
    return content.replace(text, replacement, 1)


def run(mutation, arguments, number):
    """The verdict of one mutant."""
    _, source, text, replacement, _ = mutation
    root = pathlib.Path(arguments.root)
    folder = pathlib.Path(arguments.work) / str(number)
    shutil.rmtree(folder, ignore_errors=True)  # another mutant's sources would be included
    part, unit = PARTS[source]
    sources = {source: mutant_of(root, source, text, replacement)}
    sources.setdefault(unit, mutant_of(root, unit, "", ""))
    for path, content in sources.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    command = [arguments.compiler, *FLAGS, f"-I{folder}", f"-I{root}", "-c", str(folder / unit),
               "-o", str(folder / "mutant.o")]
    subprocess.run(command, check=True)
    # A mutant's symbols come before the library's.
    command = [arguments.compiler, str(folder / "mutant.o"), *arguments.libraries, "-lpthread", "-ldl",
               "-o", str(folder / "mutant")]
    subprocess.run(command, check=True)
    result = subprocess.run([str(folder / "mutant"), part], capture_output=True, text=True, timeout=120,
                            check=False)
    return result.stdout.strip() or f"ended with {result.returncode}"


def main():
    parser = argparse.ArgumentParser()
    for name in ("root", "work", "compiler"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--libraries", nargs="+", required=True)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    chosen = [m for m in MUTATIONS if arguments.only in m[0]]
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        verdicts = pool.map(lambda i: run(chosen[i], arguments, i), range(len(chosen)))
        for mutation, verdict in zip(chosen, verdicts):
            good = mutation[4] in verdict
            failed += not good
            print(f"{'ok  ' if good else 'FAIL'} {mutation[0]}: {verdict}"
                  + ("" if good else f"; expected {mutation[4]}"), flush=True)
    print(f"{len(chosen)} mutations, {failed} not as expected")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

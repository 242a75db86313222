/* The signatures of a SavedModel, read from its serialised MetaGraphDef.

   TensorFlow's C library gives those bytes and has nothing to read them with, so here are the few
   lines of protobuf's encoding that it takes. The numbers of fields are those of meta_graph.proto:
   a MetaGraphDef maps names to signatures, a signature its inputs' and its outputs' names to
   tensors, and a tensor has a name in the graph, such as "encode_images:0". */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIGNATURES = 5, INPUTS = 1, OUTPUTS = 2, TENSOR_NAME = 1, KEY = 1, VALUE = 2 };

typedef struct {
  const unsigned char *at, *end;
} Bytes;

static uint64_t read_varint(Bytes *message) {
  uint64_t value = 0;
  for (int shift = 0; message->at < message->end; shift += 7) {
    unsigned char byte = *message->at++;
    value |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  return value;
}

/* Moves on to the next field of a message: its number, and what it holds if that is text or a
   message. 0 at the end. */
static int next_field(Bytes *message, int *number, Bytes *value) {
  if (message->at >= message->end) return 0;
  uint64_t tag = read_varint(message);
  *number = (int)(tag >> 3);
  *value = (Bytes){message->at, message->at};
  if ((tag & 7) == 0) {
    read_varint(message);
  } else if ((tag & 7) == 2) {
    uint64_t size = read_varint(message);
    if (size > (uint64_t)(message->end - message->at)) size = message->end - message->at;
    *value = (Bytes){message->at, message->at + size};
    message->at += size;
  } else {
    fprintf(stderr, "field %d is of a kind that is not read here\n", *number);
    exit(1);
  }
  return 1;
}

/* The first field of that number; empty if there is none. */
static Bytes get_field(Bytes message, int wanted) {
  int number;
  Bytes value;
  while (next_field(&message, &number, &value))
    if (number == wanted) return value;
  return (Bytes){message.end, message.end};
}

/* What a map, which is the field of that number, holds for a key; empty if nothing. */
static Bytes get_entry(Bytes message, int map, const char *key) {
  int number;
  Bytes entry;
  while (next_field(&message, &number, &entry)) {
    if (number != map) continue;
    Bytes name = get_field(entry, KEY);
    size_t size = name.end - name.at;
    if (size == strlen(key) && memcmp(name.at, key, size) == 0) return get_field(entry, VALUE);
  }
  return (Bytes){message.end, message.end};
}

/* Prints each signature, and the names of its inputs and outputs. */
static void print_signatures(Bytes meta_graph) {
  int number, side;
  Bytes entry, tensor;
  while (next_field(&meta_graph, &number, &entry)) {
    if (number != SIGNATURES) continue;
    Bytes name = get_field(entry, KEY), signature = get_field(entry, VALUE);
    if (name.at < name.end && *name.at == '_') continue; /* the SavedModel's own */
    printf("%.*s\n", (int)(name.end - name.at), name.at);
    while (next_field(&signature, &side, &tensor)) {
      if (side != INPUTS && side != OUTPUTS) continue;
      Bytes given = get_field(tensor, KEY);
      Bytes in_graph = get_field(get_field(tensor, VALUE), TENSOR_NAME);
      printf("  %s %.*s: tensor %.*s\n", side == INPUTS ? "takes" : "gives",
             (int)(given.end - given.at), given.at, (int)(in_graph.end - in_graph.at), in_graph.at);
    }
  }
}

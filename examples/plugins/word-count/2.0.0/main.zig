//! Counts words, lines and bytes. A WASI command: one JSON request on stdin, one JSON answer on stdout, the log on stderr.
const std = @import("std");
const wasi = std.os.wasi;

const allocator = std.heap.wasm_allocator;

const Request = struct {
    action: []const u8,
    params: struct { text: []const u8 = "" } = .{},
    config: struct { minLength: usize = 1 } = .{},
};

pub fn main() !void {
    const input = try readAll();
    const request = try std.json.parseFromSliceLeaky(Request, allocator, input, .{ .ignore_unknown_fields = true });
    var words: usize = 0;
    const lines = std.mem.count(u8, request.params.text, "\n") + 1;
    var iterator = std.mem.tokenizeAny(u8, request.params.text, " \t\r\n");
    while (iterator.next()) |word| {
        if (word.len >= request.config.minLength) words += 1;
    }
    try writeAll(2, try std.fmt.allocPrint(allocator, "counted {d} bytes\n", .{request.params.text.len}));
    const result = .{ words, lines, request.params.text.len };
    const answer = "{{\"result\":{{\"words\":{d},\"lines\":{d},\"bytes\":{d}}}}}";
    try writeAll(1, try std.fmt.allocPrint(allocator, answer, result));
}

fn readAll() ![]u8 {
    var input: std.ArrayList(u8) = .empty;
    var chunk: [65536]u8 = undefined;
    while (true) {
        var buffers = [_]wasi.iovec_t{.{ .base = &chunk, .len = chunk.len }};
        var count: usize = 0;
        if (wasi.fd_read(0, &buffers, buffers.len, &count) != .SUCCESS) return error.ReadFailed;
        if (count == 0) return input.items;
        try input.appendSlice(allocator, chunk[0..count]);
    }
}

fn writeAll(descriptor: wasi.fd_t, text: []const u8) !void {
    var rest = text;
    while (rest.len > 0) {
        var buffers = [_]wasi.ciovec_t{.{ .base = rest.ptr, .len = rest.len }};
        var count: usize = 0;
        if (wasi.fd_write(descriptor, &buffers, buffers.len, &count) != .SUCCESS) return error.WriteFailed;
        rest = rest[count..];
    }
}

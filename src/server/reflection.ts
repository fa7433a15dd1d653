/**
 * grpc.reflection.v1.ServerReflection (proto/grpc/reflection/v1/reflection.proto): descriptors for
 * clients without .proto files. They come from the generated code, so they cannot be stale.
 */

import {
  type DescExtension,
  type DescFile,
  type DescService,
  type MessageInitShape,
  toBinary,
} from "@bufbuild/protobuf";
import { nestedTypes } from "@bufbuild/protobuf/reflect";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { statusCodes } from "../errors.ts";
import {
  ServerReflection,
  type ServerReflectionRequest,
  type ServerReflectionResponseSchema,
} from "../gen/grpc/reflection/v1/reflection_pb.ts";
import { type Handlers, type Implementation, implement } from "../grpc/serve.ts";
import { reflectionBounds } from "./bounds.ts";

export interface ReflectionOptions {
  /** The services to list; their files, and all that these import, can be asked for. */
  readonly services: readonly DescService[];
}

/** The service as v1 and as v1alpha, which is the same on the wire and what older clients ask. */
export function reflection({ services }: ReflectionOptions): Implementation[] {
  const listed = [...services, ServerReflection];
  const catalog = catalogOf(listed.map((service) => service.file));
  const handlers: Handlers<typeof ServerReflection> = {
    async *serverReflectionInfo(questions) {
      for await (const question of questions) {
        yield {
          validHost: question.host,
          originalRequest: question,
          messageResponse: answer(question, listed, catalog),
        };
      }
    },
  };
  return [
    implement(ServerReflection, handlers, { bounds: reflectionBounds }),
    implement(ServerReflection, handlers, {
      bounds: reflectionBounds,
      typeName: "grpc.reflection.v1alpha.ServerReflection",
    }),
  ];
}

type Answer = MessageInitShape<typeof ServerReflectionResponseSchema>["messageResponse"];

function answer(
  { messageRequest: { case: kind, value } }: ServerReflectionRequest,
  services: readonly DescService[],
  { files, symbols, extensions }: Catalog,
): Answer & object {
  switch (kind) {
    case "listServices":
      return {
        case: "listServicesResponse",
        value: { service: services.map(({ typeName }) => ({ name: typeName })) },
      };
    case "fileByFilename":
      return fileAnswer(files.get(value), `file ${value}`);
    case "fileContainingSymbol":
      return fileAnswer(symbols.get(value), `symbol ${value}`);
    case "fileContainingExtension": {
      const { containingType, extensionNumber } = value;
      const found = extensions.find(
        ({ extendee, number }) =>
          extendee.typeName === containingType && number === extensionNumber,
      );
      return fileAnswer(found?.file, `extension ${extensionNumber} of ${containingType}`);
    }
    case "allExtensionNumbersOfType": {
      if (!symbols.has(value)) {
        return notFound(`type ${value}`);
      }
      const known = extensions.filter(({ extendee }) => extendee.typeName === value);
      return {
        case: "allExtensionNumbersResponse",
        value: { baseTypeName: value, extensionNumber: known.map(({ number }) => number) },
      };
    }
    case undefined:
      return error("INVALID_ARGUMENT", "the request asks nothing");
    default:
      return kind satisfies never;
  }
}

/** The file and all that it imports, so that one answer is enough. */
function fileAnswer(file: DescFile | undefined, what: string): Answer & object {
  if (file === undefined) {
    return notFound(what);
  }
  const withImports = new Set<DescFile>();
  const add = (next: DescFile) => {
    if (!withImports.has(next)) {
      withImports.add(next);
      next.dependencies.forEach(add);
    }
  };
  add(file);
  return {
    case: "fileDescriptorResponse",
    value: {
      fileDescriptorProto: Array.from(withImports, ({ proto }) =>
        toBinary(FileDescriptorProtoSchema, proto),
      ),
    },
  };
}

function notFound(what: string) {
  return error("NOT_FOUND", `${what} not found`);
}

function error(code: keyof typeof statusCodes, errorMessage: string) {
  return {
    case: "errorResponse",
    value: { errorCode: statusCodes[code], errorMessage },
  } as const;
}

interface Catalog {
  /** By import path, such as orders/v1/streaming.proto. */
  readonly files: ReadonlyMap<string, DescFile>;
  /** The file that declares a fully-qualified name. */
  readonly symbols: ReadonlyMap<string, DescFile>;
  readonly extensions: readonly DescExtension[];
}

function catalogOf(roots: readonly DescFile[]): Catalog {
  const files = new Map<string, DescFile>();
  const symbols = new Map<string, DescFile>();
  const extensions: DescExtension[] = [];

  const add = (file: DescFile): void => {
    const path = `${file.name}.proto`;
    if (files.has(path)) {
      return;
    }
    files.set(path, file);
    for (const type of nestedTypes(file)) {
      symbols.set(type.typeName, file);
      const addNames = (scope: string, members: readonly { readonly name: string }[]) => {
        for (const { name } of members) {
          symbols.set(scope === "" ? name : `${scope}.${name}`, file);
        }
      };
      switch (type.kind) {
        case "service":
          addNames(type.typeName, type.methods);
          break;
        case "message":
          addNames(type.typeName, [...type.fields, ...type.oneofs]);
          break;
        case "enum":
          // The values of an enum are names of the scope that the enum is in.
          addNames(type.typeName.split(".").slice(0, -1).join("."), type.values);
          break;
        case "extension":
          extensions.push(type);
          break;
      }
    }
    file.dependencies.forEach(add);
  };
  roots.forEach(add);
  return { files, symbols, extensions };
}

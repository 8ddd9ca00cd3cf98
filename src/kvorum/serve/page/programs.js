// The programs that the server offers, as they declare themselves; asked for once.

const known = new Map();
let asked = null;

/** All programs by name, and the name of the one that is taken where nobody chooses. */
export function loadPrograms(api) {
  asked ??= ask(api);
  return asked;
}

async function ask(api) {
  try {
    const reply = await api.get("/v1/programs");
    for (const program of reply.data) known.set(program.name, program);
    return { programs: known, byDefault: reply.default };
  } catch (error) {
    asked = null; // so that it is asked for again
    throw error;
  }
}

/** What a program declares, such as whether it `listens`; undefined where it is not known. */
export const trait = (name, which) => known.get(name)?.[which];

// Prisma's schema engine as it comes with the package, in WebAssembly, over node-postgres.
import { PrismaPg } from "@prisma/adapter-pg";

export default {
  experimental: { adapter: true },
  engine: "js",
  schema: "prisma/schema.prisma",
  migrations: { path: "prisma/migrations", seed: process.env.PRISMA_SEED },
  adapter: async () => new PrismaPg({ connectionString: process.env.DATABASE_URL }),
};
